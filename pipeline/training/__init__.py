"""From annotated images to weight maps and training samples."""
