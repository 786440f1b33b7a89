"""Where commands print."""

import sys

from rich.console import Console

# Where nobody looks at a terminal of 80 columns, a sum or a path stays on its line.
console = Console(width=None if sys.stdout.isatty() else 200)
