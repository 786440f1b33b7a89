"""The files of Zarr stores as plain bytes, to serve or to copy: local, in object stores, on web servers, converted."""
