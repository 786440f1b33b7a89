"""Files of microscopes to OME-Zarr: readers behind one protocol, a plan, and the run."""
