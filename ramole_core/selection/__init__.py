"""Select a request's adapters: named, known to its method, or found."""
