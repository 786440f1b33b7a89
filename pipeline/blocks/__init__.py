"""How an image is cut up and how the parts are run: grids, sizes, windows, tasks, memory, progress."""
