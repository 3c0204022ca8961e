"""Middleware that checks requests: hosts, origins, sizes, passwords."""
