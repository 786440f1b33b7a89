"""A small site, and a client that sends exactly the bytes it is told to."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segment_slide.pipeline.viewer.server import ViewServer
from segment_slide.pipeline.viewer.site import Site
from tests.flows.support import noise, write_ome

PAGE, SCRIPT, INFO = b"<!doctype html><p>page</p>", b"const VIEW = {};\n", b'{"inline": {}}'
DEADLINE_S = 60  # for what hangs


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def make_site(folder: Path) -> Site:
    """Two images as data/0 and data/1, and generated files."""
    for index, name in enumerate(("a.ome.zarr", "b.ome.zarr")):
        write_ome(folder / name, noise(100, 130, seed=index), "yx", n_levels=2)
    return site_of(folder / "a.ome.zarr", folder / "b.ome.zarr")


def site_of(*locations: object) -> Site:
    files = {"index.html": PAGE, "view.js": SCRIPT, "data/objects/info": INFO}
    return Site("test", files, {f"data/{index}": str(location) for index, location in enumerate(locations)})


def send(port: int, request: bytes, address: str = "127.0.0.1") -> bytes:
    """Bytes that come back until the server closes the connection."""
    with socket.create_connection((address, port), timeout=DEADLINE_S) as connection:
        connection.sendall(request)
        pieces = []
        while piece := connection.recv(1 << 20):
            pieces.append(piece)
    return b"".join(pieces)


def ask(
    server: ViewServer, target: str | bytes, method: str = "GET", *, host: str | None = None, **headers: str
) -> Answer:
    """One request; its target goes out as it is, not a byte mended. Header names: ``_`` stands for ``-``."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    host = f"127.0.0.1:{server.port}" if host is None else host
    head = "\r\n".join([f"Host: {host}", "Connection: close", *lines]).encode()
    raw = target if isinstance(target, bytes) else target.encode()
    return parse(send(server.port, method.encode() + b" " + raw + b" HTTP/1.1\r\n" + head + b"\r\n\r\n"))


def parse(answer: bytes) -> Answer:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Answer(int(first.split()[1]), headers, body)


def below(server: ViewServer, path: str) -> str:
    """A path below the token."""
    return f"/v/{server.token}/{path}"
