"""What a request must be before the page looks at it: hosts, origins, sizes, passwords."""
