"""The model for the page: loading, streams of answers, and a lent GPU."""
