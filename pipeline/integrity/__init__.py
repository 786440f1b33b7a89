"""Whether what this package stored is what it wrote: every file, every record, and what must agree between them."""
