"""Six kinds of gate, as somebody from outside would write them: a file each, nothing else."""
