"""A web server for one viewer: only on this machine's loopback, read-only, at an address that nobody can guess."""

import asyncio
import contextlib
import os
import secrets
import socket
import threading
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from tornado.web import Application

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.viewer.connections import GuardedServer
from segment_slide.pipeline.viewer.handler import Content, ViewHandler
from segment_slide.pipeline.viewer.site import Site

ADDRESS = "127.0.0.1"
_CLOSING_S = 5.0
_IDLE_S = 60  # limit for a connection without a request, or with half of one
_WAITING = 1024  # connections that the system keeps until they are accepted; its own limit is usually 4096


class ViewServer:
    """A running server; call `close` at the end, or use it in a ``with``.

    Attributes
    ----------
    port : int
        The port on 127.0.0.1.
    token : str
        192 random bits; without them every request is refused.
    url : str
        The address to open in a browser.
    """

    def __init__(self, site: Site, *, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        self._content = Content(site)
        listener = _bind(port)
        self.port: int = listener.getsockname()[1]
        self.url = f"http://{ADDRESS}:{self.port}/v/{self.token}/"
        self._stop: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(listener)), name="view-server", daemon=True
        )
        self._thread.start()
        self._stop.result()

    async def _run(self, listener: socket.socket) -> None:
        arguments: dict[str, Any] = {"token": self.token, "content": self._content}
        application = Application(
            default_handler_class=ViewHandler, default_handler_args=arguments, log_function=lambda _: None
        )
        server = GuardedServer(application, max_body_size=1 << 16, body_timeout=30, idle_connection_timeout=_IDLE_S)
        stop_accepting = server.accept_from(listener, self.token)
        sweeping = asyncio.create_task(server.sweep())
        stopped = asyncio.Event()
        self._stop.set_result((asyncio.get_running_loop(), stopped))
        await stopped.wait()
        sweeping.cancel()
        stop_accepting()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.close_all_connections(), _CLOSING_S)

    def close(self) -> None:
        """Stop the server; its port is free afterwards."""
        loop, stopped = self._stop.result()
        if self._thread.is_alive():
            loop.call_soon_threadsafe(stopped.set)
            self._thread.join()
        self._content.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _bind(port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise InputError(f"port={port}, expected 0 to 65535; 0 takes one that is free.")
    try:
        listener = socket.create_server((ADDRESS, port), backlog=_WAITING)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise InputError(
            f"port={port} cannot be used: {why}. Name another, or leave it out to take one that is free."
        ) from error
    listener.setblocking(False)
    return listener


def serve(site: Site, *, port: int = 0) -> ViewServer:
    """Serve a viewer to this machine's browsers until it is closed.

    Parameters
    ----------
    site : Site
        The viewer to serve.
    port : int
        The port on 127.0.0.1; 0 takes a free one.

    Raises
    ------
    InputError
        If the port is taken or cannot be used.
    """
    return ViewServer(site, port=port)
