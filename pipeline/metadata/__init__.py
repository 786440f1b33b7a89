"""What files say of their pixels, and how it is read and shown: units, channels, colours."""
