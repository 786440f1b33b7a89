"""What files say of their pixels, and how it is read: units and numbers."""
