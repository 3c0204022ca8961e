"""Many engines as one: the page asks those that run in other processes or on other machines."""
