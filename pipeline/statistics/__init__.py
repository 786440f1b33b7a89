"""Statistics of a whole image: moments, percentiles, and the normalisation that is made of them."""
