"""The model as the page sees it: loading, streams of answers, and a lent GPU."""
