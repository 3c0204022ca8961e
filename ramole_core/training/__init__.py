"""Training adapters and routers on the base that serves them; resumable, with dev losses."""
