"""One prompt, answered in several ways side by side."""
