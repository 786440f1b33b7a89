"""Whether the input of a run is the same at the end as it was at the start, and what depends on what is not."""
