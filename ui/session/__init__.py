"""Sessions: their owners, uploads and quotas."""
