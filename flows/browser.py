"""Open the user's browser at an address that is a secret, without showing it to the machine's other users.

A browser's command line can be read by everybody (/proc), and so could the address in it. The browser is therefore
given a file that only this user can read and that leads on to the address.
"""

import contextlib
import html
import logging
import os
import tempfile
import threading
import webbrowser
from collections.abc import Iterator, Mapping
from pathlib import Path

log = logging.getLogger(__name__)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={url}">
<title>Viewer</title>
</head>
<body><p><a href="{url}">To the viewer</a></p></body>
</html>
"""


@contextlib.contextmanager
def opened(url: str, environment: Mapping[str, str]) -> Iterator[None]:
    """Open the browser, beside which the caller goes on: some commands end only with their browser.

    Parameters
    ----------
    url : str
        Where the browser is sent.
    environment : mapping
        ``XDG_RUNTIME_DIR`` says where files of this session lie; else they lie in the user's cache.
    """
    with contextlib.ExitStack() as stack:
        try:
            page = stack.enter_context(_redirect(url, environment))
        except OSError as error:
            log.warning("The browser is not opened, since no file can be written for it: %s", error)
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
    """A page in a folder that only this user can enter, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="viewer-", dir=_private_place(environment)) as folder:  # of mode 0700
        page = Path(folder, "index.html")
        with os.fdopen(os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(_PAGE.format(url=html.escape(url)))
        yield page


def _private_place(environment: Mapping[str, str]) -> Path | None:
    """A folder that can be written: the session's, else the user's cache, else (None) the one for temporary files."""
    if (session := environment.get("XDG_RUNTIME_DIR")) and os.access(session, os.W_OK | os.X_OK):
        return Path(session)
    try:
        cache = Path.home() / ".cache" / "segment-slide"
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # no home, or one that is read-only, as in a container
        log.debug("no cache in the home folder: %s", error)
        return None
    return cache if os.access(cache, os.W_OK | os.X_OK) else None
