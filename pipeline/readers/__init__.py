"""Microscope files, pictures and slides, box by box: one interface, and its readers beside TIFF and stacks."""
