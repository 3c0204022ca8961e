"""The tab Results: the measured tables, each with the command that made it."""
