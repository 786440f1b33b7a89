"""From a class map to objects: found in each block, joined across block faces, numbered as in the whole image."""
