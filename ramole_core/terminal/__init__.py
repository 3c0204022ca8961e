"""Shared input and output of the commands: reading, printing, JSON."""
