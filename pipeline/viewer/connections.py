"""Which connections the viewer's server keeps: a stranger who holds many of them open must not lock the user out.

Every user of the machine can connect to a port of its loopback, but only the viewer's own user knows the token::

    shows the token          kept, as long as the browser takes what it asked for
    shows none within 5 s    closed
    all places are taken     of those without a token the oldest is closed, and the new one gets its place

A browser sends its request as soon as it is connected. What has arrived is looked at before a connection is closed, so
that strangers who come faster than requests are answered push nobody out who has shown the token.
"""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tornado import iostream
from tornado.httpserver import HTTPServer
from tornado.netutil import add_accept_handler

MOST_CONNECTIONS = 256  # a browser opens 6; each needs a file descriptor, and a process usually has 1024
TOKEN_S = 5.0  # limit for a connection that has not shown the token yet
STALLED_S = 60.0  # limit for a reader that takes no byte of what it asked for; tornado has none for writing
_SWEEP_S = 0.5


class Stream(iostream.IOStream):
    """A connection that knows how old it is, when its client last took bytes, and whether it has shown the token.

    Parameters
    ----------
    connection : socket
        As it was accepted.
    forget : callable
        Called when it is closed, by whomever.
    """

    def __init__(self, connection: socket.socket, forget: "Callable[[Stream], None]") -> None:
        super().__init__(connection)
        self._forget = forget
        self.opened_s = self.taken_s = time.monotonic()
        self.has_token = False

    def write(self, data: bytes | memoryview) -> "asyncio.Future[None]":
        """See `tornado.iostream.BaseIOStream`."""
        if not self.writing():
            self.taken_s = time.monotonic()  # the wait begins here
        return super().write(data)

    def write_to_fd(self, data: memoryview) -> int:
        """See `tornado.iostream.BaseIOStream`."""
        n_taken: int = super().write_to_fd(data)
        if n_taken:
            self.taken_s = time.monotonic()
        return n_taken

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        """See `tornado.iostream.BaseIOStream`. Of a closed connection, requests that had arrived are not answered."""
        if self.closed():
            raise iostream.StreamClosedError()
        return super().read_until_regex(regex, max_bytes)

    def close_fd(self) -> None:
        """See `tornado.iostream.BaseIOStream`."""
        super().close_fd()
        self._forget(self)

    def begins_with(self, request: bytes) -> bool:
        """Whether what has arrived and is not read yet begins like this."""
        with contextlib.suppress(OSError):  # nothing has arrived, or it is closed
            return secrets.compare_digest(self.socket.recv(len(request), socket.MSG_PEEK), request)
        return False

    def is_overdue(self, now_s: float) -> bool:
        """Whether the client had its time: to show the token, or to read on."""
        if not self.has_token:
            return now_s - self.opened_s > TOKEN_S
        return self.writing() and now_s - self.taken_s > STALLED_S


class GuardedServer(HTTPServer):
    """An HTTP server whose places nobody can take who does not know the token."""

    def accept_from(self, listener: socket.socket, token: str) -> Callable[[], None]:
        """Accept connections; the returned function ends it and closes the listener."""
        self._request = f"GET /v/{token}/".encode()  # as a browser begins
        self._streams: dict[Stream, None] = {}  # the oldest first
        remove = add_accept_handler(listener, self._accept)

        def end() -> None:
            remove()
            listener.close()

        return end

    async def sweep(self) -> None:
        """Close connections whose time is over, until this is cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            now_s = time.monotonic()
            for stream in [stream for stream in self._streams if stream.is_overdue(now_s)]:
                stream.close()

    def _accept(self, connection: socket.socket, address: Any) -> None:
        if len(self._streams) >= MOST_CONNECTIONS and not self._make_place():
            connection.close()
            return
        stream = Stream(connection, lambda closed: self._streams.pop(closed, None))
        self._streams[stream] = None
        self.handle_stream(stream, address)

    def _make_place(self) -> bool:
        """Close the oldest connection that has not shown the token; False if all have."""
        for stream in self._streams:
            stream.has_token = stream.has_token or stream.begins_with(self._request)
            if not stream.has_token:
                stream.close()
                return True
        return False


def trust(connection: Any) -> None:
    """Keep a connection that has shown the token; `connection` is that of a tornado request."""
    stream = getattr(connection, "stream", None)
    if isinstance(stream, Stream):
        stream.has_token = True


def close_after(connection: Any, answered: "asyncio.Future[None]") -> None:
    """Close a connection after its answer, unless it has shown the token: strangers get one answer."""
    stream = getattr(connection, "stream", None)
    if not isinstance(stream, Stream) or stream.has_token:
        return
    if stream.writing():
        answered.add_done_callback(lambda _: stream.close())
    else:
        stream.close()  # now: tornado would answer all requests that have arrived before it calls anything back
