"""Several adapters as one: merged or mixed, and written as files that PEFT and llama.cpp load."""
