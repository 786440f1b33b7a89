"""A stranger on the same machine holds as many slow connections to the viewer as it takes: its user stays served."""

import contextlib
import itertools
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segment_slide.pipeline.viewer import connections
from segment_slide.pipeline.viewer.server import ViewServer, serve
from tests.flows.support import noise
from tests.pipeline.viewer.site import DEADLINE_S, PAGE, ask, below, make_site, parse, site_of

CHUNK = "data/0/0/c/0/0"
HEAD = b"GET /v/AAAA/ HTTP/1.1\r\nHost: localhost\r\n"
BEGINS = {
    "silent": b"",
    "header dribble": b"GET /v/AAAA/ HTTP/1.1\r\nHost: loc",
    "body dribble": HEAD + b"Content-Length: 60000\r\n\r\n",
    "readers that stop": (HEAD + b"\r\n") * 200,
}
CLOSE = "Connection: close\r\n"
N_STRANGERS = connections.MOST_CONNECTIONS + 44


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("attacked")
    make_site(folder)
    (folder / "a.ome.zarr/large").write_bytes(noise(8 << 20).tobytes())
    return folder / "a.ome.zarr"


@contextlib.contextmanager
def attacked(server: ViewServer, begins: bytes) -> Iterator[None]:
    """Strangers who begin a request and send a byte of it now and then; who is hung up on comes back at once."""
    ended = threading.Event()
    strangers = [connect(server, begins) for _ in range(N_STRANGERS)]

    def hold() -> None:
        for number in itertools.cycle(range(N_STRANGERS)):
            if ended.wait(0.01):
                return
            try:
                strangers[number].send(b"a")
            except BlockingIOError:
                continue
            except OSError:
                strangers[number].close()
                with contextlib.suppress(OSError):
                    strangers[number] = connect(server, begins)

    holding = threading.Thread(target=hold)
    holding.start()
    try:
        yield
    finally:
        ended.set()
        holding.join()
        for stranger in strangers:
            stranger.close()


def connect(server: ViewServer, begins: bytes) -> socket.socket:
    stranger = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)
    stranger.setblocking(False)
    with contextlib.suppress(OSError):
        stranger.send(begins)
    return stranger


def is_served(server: ViewServer) -> bool:
    try:
        return ask(server, below(server, "")).body == PAGE
    except (OSError, ValueError, IndexError):  # hung up on before an answer
        return False


@pytest.mark.parametrize("begins", BEGINS.values(), ids=BEGINS)
def test_slow_connections_lock_nobody_out(begins, store):
    with serve(site_of(store)) as server, attacked(server, begins):
        expected = (store / "0/c/0/0").read_bytes()
        for _ in range(30):
            assert ask(server, below(server, CHUNK)).body == expected


def test_without_the_rule_they_do(store, monkeypatch):
    monkeypatch.setattr(connections.GuardedServer, "_make_place", lambda _: False)
    monkeypatch.setattr(connections, "TOKEN_S", math.inf)
    with serve(site_of(store)) as server:
        assert is_served(server)
        with attacked(server, BEGINS["header dribble"]):
            assert not is_served(server)


def test_who_has_shown_the_token_stays_connected_beside_them(store):
    """Six connections of a browser, open before, between two requests, and in the middle of a slow download."""
    expected = (store / "large").read_bytes()
    with serve(site_of(store)) as server, contextlib.ExitStack() as stack:
        loading = [stack.enter_context(request(server, "data/0/large", CLOSE)) for _ in range(3)]
        waiting = [stack.enter_context(request(server, "")) for _ in range(3)]
        begun = [connection.recv(1000) for connection in loading]
        assert all(PAGE in connection.recv(10_000) for connection in waiting)
        with attacked(server, BEGINS["silent"]):
            for _ in range(30):
                assert is_served(server)
            for connection in waiting:
                connection.sendall(line(server, "view.js", CLOSE))
                assert parse(to_end(connection)).status == 200
            for first, connection in zip(begun, loading, strict=True):
                body = (first + to_end(connection)).partition(b"\r\n\r\n")[2]
                assert body == expected


@contextlib.contextmanager
def request(server: ViewServer, path: str, more: str = "") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        connection.sendall(line(server, path, more))
        yield connection


def line(server: ViewServer, path: str, more: str = "") -> bytes:
    return f"GET {below(server, path)} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode()


def to_end(connection: socket.socket) -> bytes:
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 20):
            pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("begins", BEGINS.values(), ids=BEGINS)
def test_who_shows_no_token_in_time_is_hung_up_on(begins, store, monkeypatch):
    monkeypatch.setattr(connections, "TOKEN_S", 0.1)
    with serve(site_of(store)) as server, request(server, "") as of_user:
        assert PAGE in of_user.recv(10_000)
        with contextlib.closing(connect(server, begins)) as stranger:
            stranger.settimeout(DEADLINE_S)
            to_end(stranger)  # otherwise this waits until its own deadline, and raises
        of_user.sendall(line(server, "view.js"))  # longer connected than the stranger
        assert of_user.recv(10_000).startswith(b"HTTP/1.1 200")


def test_a_reader_that_stops_is_hung_up_on_and_one_that_is_slow_is_not(store, monkeypatch):
    """One reads nothing for longer than the limit; the other takes as long in all, and something all the time."""
    (store / "larger").write_bytes(bytes(64 << 20))  # more than the system holds back
    monkeypatch.setattr(connections, "STALLED_S", 1.0)
    closed = noting_closed(monkeypatch)
    with serve(site_of(store)) as server, request(server, "data/0/larger") as stops:
        with request(server, "data/0/larger") as is_slow:
            n_bytes = 0
            while not closed:
                n_bytes += len(is_slow.recv(1 << 14))
                time.sleep(0.01)
            n_closed = len(closed)
            while n_bytes < 64 << 20:
                piece = is_slow.recv(1 << 20)
                assert piece, "the slow reader was hung up on"
                n_bytes += len(piece)
        assert n_closed == 1
        assert len(to_end(stops)) < 64 << 20


def noting_closed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Gets an item for each connection that is closed because its time is over."""
    closed: list[bool] = []
    is_overdue: Callable[[connections.Stream, float], bool] = connections.Stream.is_overdue

    def note(stream: connections.Stream, now_s: float) -> bool:
        if found := is_overdue(stream, now_s):
            closed.append(True)
        return found

    monkeypatch.setattr(connections.Stream, "is_overdue", note)
    return closed


@pytest.mark.parametrize("origin", ["http://example.org", "null", "http://localhost:1", "https://localhost:9", ""])
def test_a_page_of_another_origin_is_refused_even_with_the_token(origin, store):
    with serve(site_of(store)) as server:
        assert ask(server, below(server, ""), host="localhost:9", Origin=origin).status == 403


@pytest.mark.parametrize("host", ["localhost:9", "127.0.0.1:8000", "LOCALHOST:9"])
def test_no_origin_and_the_own_one_are_served_whatever_port_a_tunnel_has(host, store):
    with serve(site_of(store)) as server:
        assert ask(server, below(server, ""), host=host).body == PAGE
        assert ask(server, below(server, ""), host=host, Origin=f"http://{host.lower()}").body == PAGE
