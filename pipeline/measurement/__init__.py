"""A row for each object: exact sums of each block, united over blocks, as a table and one page."""
