"""What was read of an input, noted as it is read."""
