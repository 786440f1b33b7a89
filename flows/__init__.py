"""Runs from end to end, and the command line. Imports everything; nobody imports this."""
