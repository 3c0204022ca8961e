"""A run as figures, tables and coloured tokens: data in, picture out."""
