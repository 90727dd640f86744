"""Money that comes from outside: what ought to be granted for it, and that it is."""
