"""How good a segmentation is: pixels, objects, Rand and warping errors, block by block."""
