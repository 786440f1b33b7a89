"""From a class map to objects: found in each block, joined over faces, numbered as in the whole image."""
