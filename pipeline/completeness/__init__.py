"""Whether what lies at a path is complete: an image, a label image, a table, a training set, samples, a night."""
