"""What an operator sees of a running server: numbers and lines, in none of them what people ask."""
