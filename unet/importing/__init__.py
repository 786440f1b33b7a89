"""Make a network of another program one that `segment` runs: measure it once, and write the record into its file."""
