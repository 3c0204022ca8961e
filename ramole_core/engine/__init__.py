"""Requests become steps: prefill, decode, batches of different requests, adapters on the device."""
