"""Who owns what: a session, its uploads, and how much room it has."""
