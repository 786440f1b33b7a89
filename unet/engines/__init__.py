"""Networks of other programs: how they are run behind `unet.network`, and what is recorded of them."""
