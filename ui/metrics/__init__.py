"""`/metrics`: the numbers of `watch` and of the engine, for permitted readers."""
