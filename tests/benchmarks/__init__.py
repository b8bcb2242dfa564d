"""How fast covers is, beside what one would use instead: `make bench`."""
