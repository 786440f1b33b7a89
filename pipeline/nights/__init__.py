"""What a folder of acquisitions holds, and what the outputs remember of earlier nights."""
