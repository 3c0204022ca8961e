"""One run taken apart: maps over layers, modules and tokens, playback, two runs compared."""
