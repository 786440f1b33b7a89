"""A plain web server over a folder: it lists nothing, and it can be told to fail in every way that servers fail."""

import contextlib
import http.server
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HANGING_S = 30.0  # how long a server that hangs keeps quiet; tests do not wait for it


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers from `root`; `faults` maps a part of a path to what happens there."""

    root: Path
    faults: Mapping[str, Any]
    answers_ranges: bool
    answers_head: bool
    asked: list[str]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """Answer without a body."""
        if self.answers_head:
            self._answer(with_body=False)
        else:
            self.send_error(501)

    def do_GET(self) -> None:
        """Answer with a file or a part of it."""
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = urllib.parse.unquote(self.path)
        self.asked.append(f"{self.command} {path}")
        fault = next((what for part, what in self.faults.items() if part in path), None)
        file = self.root / path.lstrip("/")
        if isinstance(fault, int):
            self.send_error(fault)
        elif fault == "closed":
            self.close_connection = True
        elif fault == "hangs":
            time.sleep(HANGING_S)
        elif fault == "page":
            self._send(200, b"<html>please log in</html>", {"Content-Type": "text/html"}, with_body=with_body)
        elif file.is_dir():
            self.send_error(403)  # as nginx and Apache do without a listing
        elif not file.exists():
            self.send_error(404)
        else:
            self._send_file(file.read_bytes(), file, fault, with_body=with_body)

    def _send_file(self, content: bytes, file: Path, fault: Any, *, with_body: bool) -> None:
        changed = self.date_time_string(int(file.stat().st_mtime))
        headers = {"Last-Modified": changed, "Content-Type": "application/octet-stream"}
        wanted = self.headers.get("Range", "") if self.answers_ranges else ""
        status = 200
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, len(content) - int(last))
            stop = int(last) + 1 if first and last else len(content)
            headers["Content-Range"] = f"bytes {start}-{min(stop, len(content)) - 1}/{len(content)}"
            content, status = content[start:stop], 206
        self._send(status, content, headers, with_body=with_body, is_cut=fault == "cut")

    def _send(
        self, status: int, content: bytes, headers: Mapping[str, str], *, with_body: bool, is_cut: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content[: len(content) // 2] if is_cut else content)
            self.close_connection = is_cut


class Web:
    """A running server."""

    def __init__(self, address: str, asked: list[str]) -> None:
        self.address, self.asked = address, asked


@contextlib.contextmanager
def web_server(
    root: Path,
    faults: Mapping[str, Any] | None = None,
    *,
    answers_ranges: bool = True,
    answers_head: bool = True,
) -> Iterator[Web]:
    """Serve a folder; `faults` may be changed while it runs."""
    asked: list[str] = []
    members = {
        "root": root,
        "faults": {} if faults is None else faults,
        "answers_ranges": answers_ranges,
        "answers_head": answers_head,
        "asked": asked,
    }
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), members))
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield Web(f"http://127.0.0.1:{server.server_port}", asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
