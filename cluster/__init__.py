"""A frozen description of a cluster in, a Dask client out. Imports nothing of ours."""
