"""Scores of a segmentation: pixel, object, Rand and warping scores, computed block by block."""
