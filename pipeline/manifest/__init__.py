"""The manifest of an output: a list of all its files with size and sha256, written last."""
