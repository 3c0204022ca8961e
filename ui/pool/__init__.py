"""The tab Pool: the adapters that are there, one in detail, and uploads."""
