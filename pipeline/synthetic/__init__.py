"""A synthetic slide of any size with exactly known truth."""
