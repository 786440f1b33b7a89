"""Small pictures of large images and their labels."""
