"""Whether a task fits a worker."""

from segment_slide.pipeline.blocks.sizes import MiB

# Measured on Linux with benchmarks/memory.py: Python with torch, dask, zarr and scipy loaded.
PROCESS_BYTES = 600 * MiB
