"""Which adapters a request gets: named, known to its method, or found."""
