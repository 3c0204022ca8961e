"""The base model: fetched, converted, its shapes read, loaded. Imports nothing by itself."""
