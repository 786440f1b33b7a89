"""Pixels on disk and what is said of them: stores, OME metadata, records, pyramids, locks."""
