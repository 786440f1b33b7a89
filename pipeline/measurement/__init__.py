"""Measure each object: exact sums per block, united across blocks, written as a table and a summary page."""
