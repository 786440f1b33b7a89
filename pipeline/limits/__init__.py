"""What files may claim: their metadata and sizes are checked before memory is asked for, and errors become words."""
