"""Speed: the engine against its own bare base, against peers, and under thousands of adapters."""
