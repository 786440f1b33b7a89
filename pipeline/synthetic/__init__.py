"""A synthetic slide of any size whose truth is known."""
