"""From an image to class labels: options, plan, one block, all blocks."""
