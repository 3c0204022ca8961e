"""Run requests in steps: prefill, decode, one batch for all, adapters on the device."""
