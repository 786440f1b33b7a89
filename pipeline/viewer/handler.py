"""How one request to a viewer is answered: with a page, with bytes of a store, or with 404 and no further hint.

Pages of other sites in the same browser can connect to this server, but do not know the token. A page that points its
own name at this server (DNS rebinding) is refused because of its Host header. What a page of another origin asks is
refused because of its Origin header; browsers leave it out where a page asks its own server. Files are sent as plain
bytes, so that a browser never runs a file of a store as a page.
"""

import asyncio
import logging
import re
import secrets
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote_to_bytes

from tornado import iostream
from tornado.web import Finish, HTTPError, RequestHandler

from segment_slide.pipeline.served_files.files import Files, MemoryFile, OpenFile
from segment_slide.pipeline.served_files.open import open_files
from segment_slide.pipeline.viewer.connections import close_after, trust
from segment_slide.pipeline.viewer.reader_threads import Readers
from segment_slide.pipeline.viewer.site import POLICY, Site, client_files

_ONE_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]{0,4000})\s*-\s*([0-9]{0,4000})\s*", re.ASCII | re.IGNORECASE)

log = logging.getLogger(__name__)

CONTENT_SECURITY_POLICY = f"{POLICY}; frame-ancestors 'none'"  # frames can be forbidden in a header only
# A worker follows the policy of its own script. neuroglancer's worker builds a decoder from text when it starts. If
# that is forbidden, none of its decoders work and every compressed chunk stays empty.
_WORKER_POLICY = CONTENT_SECURITY_POLICY.replace("'wasm-unsafe-eval'", "'unsafe-eval' 'wasm-unsafe-eval'")
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
}
_BYTES = "application/octet-stream"
_REVALIDATE, _FOR_EVER = "no-cache", "private, max-age=31536000, immutable"
_HASHED = re.compile(r"(^|\.)[0-9a-f]{16}\.")  # "main.8608d1fc21b22785.js": another content has another name
_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?", re.IGNORECASE)  # an ssh tunnel may use any port
_PIECE_BYTES = 4 << 20  # bytes that are read and sent at once
_THREADS = 8  # per store, so that a slow disk delays only its own readers; a browser opens 6 connections


class Content:
    """All that can be fetched below the token: pages and the client in memory, and the files of the stores."""

    def __init__(self, site: Site) -> None:
        pages = {**client_files(), **site.files}
        self._pages = {path: MemoryFile(content) for path, content in pages.items()}
        self._stores: dict[str, tuple[Files, Readers]] = {
            path: (open_files(location, site.types.get(path)), Readers(_THREADS, "view-reader"))
            for path, location in site.stores.items()
        }

    def page(self, path: str) -> MemoryFile | None:
        """Return a page or a file of the client."""
        return self._pages.get(path or "index.html")

    def split(self, path: str) -> tuple[Files, Readers, str]:
        """Return the store that a path names, the threads that read it, and the key in it; 404 if there is no store."""
        parts = path.split("/")
        for n_parts in range(len(parts) - 1, 0, -1):
            if found := self._stores.get("/".join(parts[:n_parts])):
                return *found, "/".join(parts[n_parts:])
        raise HTTPError(404)

    def close(self) -> None:
        """Close the reader threads without waiting for reads in progress."""
        for _, readers in self._stores.values():
            readers.close()


class ViewHandler(RequestHandler):
    """Answers one request."""

    SUPPORTED_METHODS = ("GET", "HEAD")

    def initialize(self, token: str, content: Content) -> None:
        """Keep what `ViewServer` passes to each request."""
        self._token, self._content, self._size = token, content, 0

    def set_default_headers(self) -> None:
        """Set the headers of every answer, errors included."""
        self.clear_header("Server")
        self.set_header("Cache-Control", _REVALIDATE)
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Refuse a Host header that is not a name of this machine's loopback, and an Origin that is another address."""
        hosts, origins = (self.request.headers.get_list(name) for name in ("Host", "Origin"))
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            raise HTTPError(403)
        if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):  # whatever port a tunnel has
            raise HTTPError(403)

    async def get(self) -> None:
        """Answer with a page or with a file of a store."""
        path = self._path_below_token()
        if (page := self._content.page(path)) is not None:
            name = PurePosixPath(path or "index.html")
            self.set_header("Cache-Control", _FOR_EVER if _HASHED.search(name.name) else _REVALIDATE)
            self.set_header("Content-Type", _TYPES.get(name.suffix, _BYTES))
            if name.suffix == ".js":
                self.set_header("Content-Security-Policy", _WORKER_POLICY)
            await self._send(page, None)
            return
        files, readers, key = self._content.split(path)
        self.set_header("Content-Type", _BYTES)
        try:
            file = await asyncio.wrap_future(readers.submit(files.open, key))
        except FileNotFoundError as error:
            raise HTTPError(404) from error  # a Zarr reader takes it for background
        except OSError as error:
            log.warning("%s", error)
            raise HTTPError(500) from error
        try:
            await self._send(file, readers)
        finally:
            file.close()

    async def head(self) -> None:
        """Answer as `get` does, without the bytes."""
        await self.get()

    def _path_below_token(self) -> str:
        """Return the path below ``/v/<token>/``, percent signs decoded once; 404 for every other path."""
        root, *parts = map(_decode, self.request.path.split("/"))
        if root or len(parts) < 2 or parts[0] != "v":
            raise HTTPError(404)
        if not secrets.compare_digest(parts[1].encode(), self._token.encode()):
            raise HTTPError(404)
        trust(self.request.connection)
        if len(parts) == 2:
            self.redirect(f"/v/{self._token}/", permanent=True)  # addresses in the page are relative to it
            raise Finish
        return "/".join(parts[2:])

    async def _send(self, file: OpenFile, readers: Readers | None) -> None:
        """Send a file or a part of it; `readers` are the threads that read it."""
        self.set_header("Accept-Ranges", "bytes")
        if file.tag:
            self.set_header("Etag", f'"{file.tag}"')
            if self.check_etag_header():
                self.set_status(304)
                return
        start, stop = self._range(file)
        self.set_header("Content-Length", str(stop - start))
        if self.request.method == "HEAD":
            return
        try:
            await self._send_bytes(file, readers, start, stop)
        except iostream.StreamClosedError:
            return  # the browser has hung up, for example because the user scrolled on

    def _range(self, file: OpenFile) -> tuple[int, int]:
        whole, wanted = (0, file.size), self.request.headers.get("Range")
        if self.request.method != "GET" or self.request.headers.get("If-Range", f'"{file.tag}"') != f'"{file.tag}"':
            return whole
        try:
            found = parse_range(wanted, file.size)
        except UnsatisfiableRangeError as error:
            self._size = file.size
            raise HTTPError(416) from error
        if found is None:
            return whole
        self.set_status(206)
        self.set_header("Content-Range", f"bytes {found[0]}-{found[1] - 1}/{file.size}")
        return found

    async def _send_bytes(self, file: OpenFile, readers: Readers | None, start: int, stop: int) -> None:
        for first in range(start, stop, _PIECE_BYTES):
            last = min(stop, first + _PIECE_BYTES)
            try:
                if readers is None:
                    piece = file.read(first, last)
                else:
                    piece = await asyncio.wrap_future(readers.submit(file.read, first, last))
            except OSError as error:
                log.warning("%s", error)
                if first == start:
                    raise HTTPError(500) from error
                self.detach().close()  # the connection is cut, so that the browser sees that bytes are missing
                return
            self.write(piece)
            await self.flush()

    def compute_etag(self) -> None:
        """Return None: the files have tags of their own, and tornado would hash each answer."""

    def write_error(self, status_code: int, **_: Any) -> None:
        """Write one line, the same for everything that is not there."""
        if status_code == 405:
            self.set_header("Allow", ", ".join(self.SUPPORTED_METHODS))
        if status_code == 416:
            self.set_header("Content-Range", f"bytes */{self._size}")
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        close_after(self.request.connection, self.finish(f"{status_code} {self._reason}\n"))


def _decode(part: str) -> str:
    """Decode the percent signs of one name in a path; 404 if the result could mean more than one name."""
    raw = part.encode("latin-1")
    try:
        name = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise HTTPError(404) from error
    if "/" in name or re.search(r"%(?![0-9A-Fa-f]{2})", part):
        raise HTTPError(404)
    return name


class UnsatisfiableRangeError(ValueError):
    """The range lies completely behind the end of the file: status 416."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte of a Range header and the one after the last; None for the whole file.

    The whole file is sent for several ranges at once, for other units and for an invalid header, as the RFC allows.

    Parameters
    ----------
    header : str or None
        Such as ``bytes=0-99``, ``bytes=100-``, or ``bytes=-16`` for the last 16, where Zarr keeps a shard's index.
    size : int
        Size of the file in bytes.

    Raises
    ------
    UnsatisfiableRangeError
        If the file has none of the bytes.

    Examples
    --------
    >>> parse_range("bytes=2-5", 10), parse_range("bytes=8-99", 10), parse_range("bytes=-3", 10)
    ((2, 6), (8, 10), (7, 10))
    >>> parse_range("bytes=0-1,4-5", 10) is None
    True
    """
    match = _ONE_RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= stop:
        raise UnsatisfiableRangeError(f"{header} of {size} bytes")
    return start, stop
