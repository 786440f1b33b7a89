"""The viewer in a browser: what it may show, and the server that sends only that."""
