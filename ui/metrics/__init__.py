"""`/metrics`: the numbers of `watch` and of the engine, for whom the operator lets read them."""
