"""The console that commands print to."""

import sys

from segment_slide.flows.show.safe_output import SafeConsole

# Output that does not go to a terminal is not wrapped at 80 columns, so that paths and checksums stay on one line.
console = SafeConsole(width=None if sys.stdout is not None and sys.stdout.isatty() else 200)
