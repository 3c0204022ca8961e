"""Four kinds of method, as somebody from outside would write them: a file each, nothing else."""
