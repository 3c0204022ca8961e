"""One run looked at closely: maps over layers, modules and tokens, playback, and two runs compared."""
