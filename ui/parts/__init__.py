"""Shared parts of tabs: components, sentences and prompts to try."""
