"""A night: everything new in a folder is segmented once by each version of the model."""
