"""Monitoring of a running server: numbers and log lines, without users' texts."""
