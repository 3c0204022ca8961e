"""The tab Batch: many prompts at once, each with its own adapters."""
