"""What the commands share at a terminal: what they read, print and report as JSON."""
