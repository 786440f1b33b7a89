"""The demo: a synthetic slide, a small training, and the scores of the result."""
