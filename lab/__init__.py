"""The laboratory: what measures, compares and repeats the papers' tables; nothing serves by it."""
