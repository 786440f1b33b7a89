"""Prefect flows: the work of the command line with a schedule, a form, progress and reports in a browser.

Nothing leaves the site's network: Prefect's telemetry is off unless somebody turned it on. What the stages log is shown
with the run. Prefect reads these variables when it is imported, so they are set here. A worker that imports Prefect
earlier takes them from `prefect.yaml`.
"""

import os

from segment_slide.flows.deployed.secret import protect_temporary_server

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "segment_slide")
protect_temporary_server(os.environ)
