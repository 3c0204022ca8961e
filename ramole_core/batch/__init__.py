"""A batch: a file of prompts read, run together, its answers written line by line."""
