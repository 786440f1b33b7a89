"""A night: each version of the model segments everything new in a folder once."""
