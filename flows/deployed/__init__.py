"""Prefect flows: what the command line does, with a schedule, a form, progress and reports that a browser shows.

Nothing leaves the site's network: Prefect's telemetry is off unless somebody turned it on, and what the stages log is
shown with the run. Prefect reads these variables when it is imported, which is why they are set here; where a worker
has imported it before, they are those of `prefect.yaml`.
"""

import os

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "segment_slide")
