"""Open the user's browser at a secret address without showing the address to other users of the machine.

Everybody can read a browser's command line (/proc), and so an address in it. So the browser opens a file that only
this user can read, and the file leads on to the address.
"""

import contextlib
import logging
import os
import tempfile
import threading
import webbrowser
from collections.abc import Iterator, Mapping
from pathlib import Path

from segment_slide.pipeline.documents.page import make_redirect

log = logging.getLogger(__name__)


@contextlib.contextmanager
def opened(url: str, environment: Mapping[str, str]) -> Iterator[None]:
    """Open the browser in a thread while the body runs: some commands return only when their browser is closed.

    Parameters
    ----------
    url : str
        The address to open.
    environment : mapping
        ``XDG_RUNTIME_DIR`` names the folder for files of this session; without it they go to the user's cache.
    """
    with contextlib.ExitStack() as stack:
        try:
            page = stack.enter_context(_redirect(url, environment))
        except OSError as error:
            log.warning("The browser is not opened, because its start page cannot be written: %s", error)
        else:
            threading.Thread(target=_open, args=(page.as_uri(),), name="browser", daemon=True).start()
        yield


def _open(address: str) -> None:
    try:
        found = webbrowser.open(address)
    except (OSError, webbrowser.Error) as error:
        log.warning("The browser cannot be opened: %s", error)
        return
    if not found:
        log.warning("No browser was found; open the address above in one.")


@contextlib.contextmanager
def _redirect(url: str, environment: Mapping[str, str]) -> Iterator[Path]:
    """Write a page into a folder that only this user can open. Both are removed at the end."""
    with tempfile.TemporaryDirectory(prefix="viewer-", dir=_private_place(environment)) as folder:  # of mode 0700
        page = Path(folder, "index.html")
        with os.fdopen(os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(make_redirect(url))
        yield page


def _private_place(environment: Mapping[str, str]) -> Path | None:
    """Find a writable folder: the session's, else the user's cache, else None for the folder of temporary files."""
    if (session := environment.get("XDG_RUNTIME_DIR")) and os.access(session, os.W_OK | os.X_OK):
        return Path(session)
    try:
        cache = Path.home() / ".cache" / "segment-slide"
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # no home, or one that is read-only, as in a container
        log.debug("no cache in the home folder: %s", error)
        return None
    return cache if os.access(cache, os.W_OK | os.X_OK) else None
