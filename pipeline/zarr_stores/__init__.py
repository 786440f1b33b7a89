"""Stores of Zarr: zip archives, stores that check what they read, and stores that note what they write."""
