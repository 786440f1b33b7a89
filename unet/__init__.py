"""The network of Ronneberger, Fischer & Brox (2015) and its arithmetic: no Dask, no Zarr, no Prefect."""
