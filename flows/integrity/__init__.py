"""The command `verify`: check what is stored, and make again what is broken."""
