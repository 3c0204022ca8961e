"""A batch: a file of prompts read, asked together, its answers written line by line."""
