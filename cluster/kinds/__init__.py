"""One file for each kind of cluster: local processes, dask-cuda, SLURM, the address of a scheduler."""
