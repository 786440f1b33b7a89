"""Arrays on Zarr and Dask: plan, read, segment, store. Imports `unet`; nothing here knows Prefect."""
