"""The tab Results: what was measured, in short and in tables."""
