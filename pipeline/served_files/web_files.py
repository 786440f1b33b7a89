"""The files below an ``http://`` or ``https://`` address. It lists nothing, so each file is asked for by its name.

A web server may say 404 for a chunk that was never written: that is background. Any other failure is an error, or a
server that is down would look like empty glass: another status, no answer in time, a connection that ends too early, a
page in place of the file. Servers that ignore the Range header or give no size work too.
"""

import contextlib
import email.utils
import errno
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import IO, Any

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.served_files.files import ListedFile, OpenFile, StoreFileError, digest, split_key
from segment_slide.pipeline.storage.store import join
from segment_slide.pipeline.zarr_stores.checked import web_options

_PIECE_BYTES = 1 << 20
_SPOOLED_BYTES = 8 << 20  # of a file that has to be fetched whole: above this it waits on the disk
_STATUS, _PARTIAL = ":status", "206"  # kept among the headers
_NO_HEAD = (400, 405, 501)  # servers that do not answer HEAD


class WebFiles:
    """The files below an address. Headers and logins that fsspec is configured with are sent."""

    can_list = False

    def __init__(self, location: str) -> None:
        import fsspec

        self._filesystem, root = fsspec.core.url_to_fs(location, **web_options(location))
        self._root = root.rstrip("/")

    def open(self, key: str) -> OpenFile:
        """See `Files`."""
        url = join(self._root, *split_key(key))
        headers = self._run(_ask_head(self._filesystem, url), url)
        size = None if headers is None else _size(headers)
        if size is None:
            headers, content = self.fetch(url)
            return _WebFile(self, url, headers, content.tell(), content)
        return _WebFile(self, url, headers or {}, size)

    def fetch(self, url: str, part: tuple[int, int] | None = None) -> tuple[dict[str, str], IO[bytes]]:
        """Fetch a file or a part of it; return the headers and what the server sent, which may be the whole file."""
        content = tempfile.SpooledTemporaryFile(_SPOOLED_BYTES)  # noqa: SIM115  whoever gets it closes it
        try:
            return self._run(_fetch(self._filesystem, url, part, content), url), content
        except BaseException:
            content.close()
            raise

    def walk(self, path: str) -> Iterator[ListedFile]:
        """Refuse: see `Files.can_list`."""
        raise InputError(f"{join(self._root, path)} is on a web server, which has no listing of its files.")

    def _run(self, work: Any, url: str) -> Any:
        """Run a coroutine in fsspec's own loop; 404 becomes FileNotFoundError, everything else OSError."""
        from fsspec.asyn import sync

        try:
            return sync(self._filesystem.loop, lambda: work)
        except FileNotFoundError:
            raise
        except Exception as error:  # aiohttp has classes of its own
            why = str(error) or type(error).__name__
            raise StoreFileError(f"{url} cannot be read: {why}") from error


class _WebFile:
    """One version of a file. `content` holds all of it if the server sends no parts."""

    def __init__(
        self, files: WebFiles, url: str, headers: dict[str, str], size: int, content: IO[bytes] | None = None
    ) -> None:
        self._files, self._url, self._content = files, url, content
        self._version = _version(headers)
        self.size = size
        self.tag = digest(f"{self._version} {size}".encode()) if self._version else ""
        self.mtime_ns = _changed_ns(headers)

    def read(self, start: int, stop: int) -> bytes:
        """See `OpenFile`."""
        if self._content is None:
            is_whole = (start, stop) == (0, self.size)
            headers, content = self._files.fetch(self._url, None if is_whole else (start, stop))
            is_part = headers[_STATUS] == _PARTIAL
            if _version(headers) != self._version or content.tell() != (stop - start if is_part else self.size):
                content.close()
                raise StoreFileError(f"{self._url} was replaced while it was read, or was cut off")
            if is_part:
                with content:
                    return _take(content, 0, stop - start)
            self._content = content  # the server has sent the whole file, and would do so for each piece
        return _take(self._content, start, stop)

    def close(self) -> None:
        """See `OpenFile`."""
        if self._content is not None:
            self._content.close()


def _take(file: IO[bytes], start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(stop - start)


@contextlib.asynccontextmanager
async def _answer(filesystem: Any, method: str, url: str, headers: dict[str, str]) -> AsyncIterator[Any]:
    session = await filesystem.set_session()
    options = dict(filesystem.kwargs)
    sent = {**options.pop("headers", {}), "Accept-Encoding": "identity", **headers}
    options.setdefault("allow_redirects", True)
    try:
        async with session.request(method, filesystem.encode_url(url), headers=sent, **options) as answer:
            yield answer
    except TimeoutError as error:
        raise StoreFileError("the server did not answer in time") from error


async def _ask_head(filesystem: Any, url: str) -> dict[str, str] | None:
    """Headers of a file; None if the server tells them only together with the file."""
    async with _answer(filesystem, "HEAD", url, {}) as answer:
        if answer.status in _NO_HEAD:
            return None
        _check(answer, url)
        return dict(answer.headers.items()) if "Content-Encoding" not in answer.headers else None


async def _fetch(filesystem: Any, url: str, part: tuple[int, int] | None, out: IO[bytes]) -> dict[str, str]:
    """Write a file, or a part of it, and return the headers, with the status among them."""
    wanted = {} if part is None else {"Range": f"bytes={part[0]}-{part[1] - 1}"}
    async with _answer(filesystem, "GET", url, wanted) as answer:
        _check(answer, url)
        async for piece in answer.content.iter_chunked(_PIECE_BYTES):
            out.write(piece)
        return {**dict(answer.headers.items()), _STATUS: str(answer.status)}


def _check(answer: Any, url: str) -> None:
    if answer.status == 404:
        raise FileNotFoundError(errno.ENOENT, "not on the server", url)
    if answer.status not in (200, 206):
        raise StoreFileError(f"the server answered {answer.status} {answer.reason or ''}".rstrip())
    if answer.content_type == "text/html" and "Content-Type" in answer.headers:
        raise StoreFileError("the server answered with a page (text/html), not with a file of a Zarr store")


def _size(headers: dict[str, str]) -> int | None:
    found = _named(headers, "Content-Length")
    return int(found) if found.isdecimal() else None


def _version(headers: dict[str, str]) -> str:
    return _named(headers, "ETag").removeprefix("W/") or _named(headers, "Last-Modified")


def _changed_ns(headers: dict[str, str]) -> int | None:
    try:
        return int(email.utils.parsedate_to_datetime(_named(headers, "Last-Modified")).timestamp()) * 1_000_000_000
    except (ValueError, OverflowError):  # none, or damaged
        return None


def _named(headers: dict[str, str], name: str) -> str:
    return next((value for key, value in headers.items() if key.lower() == name.lower()), "")
