"""Nothing is served but what the viewer shows: a stranger sends what no browser would, beside the right request."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.viewer import connections
from segment_slide.pipeline.viewer.handler import UnsatisfiableRangeError, parse_range
from segment_slide.pipeline.viewer.reader_threads import Readers
from segment_slide.pipeline.viewer.server import ViewServer, serve
from segment_slide.pipeline.viewer.site import client_files
from tests.flows.support import noise
from tests.pipeline.viewer.site import DEADLINE_S, INFO, PAGE, SCRIPT, ask, below, make_site, parse, send, site_of

SECRET = b"nobody meant to show this"
CHUNK = "data/0/0/c/0/0"
N_BYTES = 200  # of noise that ranges are cut from


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two stores, and beside them what must not be had: a secret, and a folder whose name begins like the store's."""
    folder = tmp_path_factory.mktemp("stores")
    make_site(folder)
    (folder / "secret.txt").write_bytes(SECRET)
    (folder / "a.ome.zarr2").mkdir()
    (folder / "a.ome.zarr2" / "secret.txt").write_bytes(SECRET)
    store = folder / "a.ome.zarr"
    (store / ".zattrs").write_bytes(b"{}")
    (store / "page.html").write_bytes(b"<script>alert(1)</script>")
    (store / "noise").write_bytes(noise(N_BYTES).tobytes())
    (store / "empty").touch()
    (store / "link-out").symlink_to(folder / "secret.txt")
    (store / "link-up").symlink_to("../secret.txt")
    (store / "link-absolute").symlink_to("/etc/hostname")
    (store / "folder-out").symlink_to(folder, target_is_directory=True)
    (store / "folder-beside").symlink_to(folder / "a.ome.zarr2", target_is_directory=True)
    (store / "link-in").symlink_to("zarr.json")
    (store / "folder-in").symlink_to("0", target_is_directory=True)
    (store / "circle").symlink_to("circle")
    (store / "dangling").symlink_to("nowhere")
    (store / "device").symlink_to("/dev/zero")
    os.mkfifo(store / "fifo")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(store / "socket"))
    return folder


@pytest.fixture(scope="module")
def server(folder) -> Iterator[ViewServer]:
    with serve(site_of(folder / "a.ome.zarr", folder / "b.ome.zarr")) as server:
        yield server


def test_pages_client_generated_files_and_chunks_are_served_as_they_are(server, folder):
    expected = {"": PAGE, "index.html": PAGE, "view.js": SCRIPT, "data/objects/info": INFO, **client_files()}
    for path in ("zarr.json", "0/zarr.json", "0/c/0/0", "1/c/0/1", ".zattrs"):
        expected[f"data/0/{path}"] = (folder / "a.ome.zarr" / path).read_bytes()
    expected["data/1/0/c/0/0"] = (folder / "b.ome.zarr/0/c/0/0").read_bytes()
    for path, content in expected.items():
        answer = ask(server, below(server, path))
        assert (answer.status, answer.body == content) == (200, True), path
        head = ask(server, below(server, path), "HEAD")
        assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(content)))


def test_zarr_reads_an_array_from_the_server(server, folder):
    there = zarr.open_array(f"{server.url}data/0/0", mode="r")
    here = zarr.open_array(folder / "a.ome.zarr/0", mode="r")
    np.testing.assert_array_equal(there[...], here[...])


NOT_THERE = {
    "root": "/",
    "question": "/?",
    "empty query": "/v/?x",
    "no token": "/v/",
    "no token, no slash": "/v",
    "wrong token": "/v/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/",
    "wrong token, chunk": f"/v/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/{CHUNK}",
    "empty token": f"/v//{CHUNK}",
    "part of the token": "/v/{half}/",
    "token of another case": "/v/{swapped}/",
    "longer token": "/v/{token}A/",
    "token in a query": "/v/x/?token={token}",
    "outside of v": "/w/{token}/",
    "no v": "/{token}/",
    "page of another name": "/v/{token}/index.htm",
    "maps": "/v/{token}/main.8608d1fc21b22785.js.map",
    "favicon": "/favicon.ico",
    "robots": "/robots.txt",
    "neuroglancer's own server": "/neuroglancer/info/{token}",
    "not UTF-8": "/v/%ff%fe/",
    "slash before": "//v/{token}/",
    "absolute address": "http://127.0.0.1/v/{token}/",
}


@pytest.mark.parametrize("target", NOT_THERE.values(), ids=NOT_THERE)
def test_without_the_token_everything_is_not_found_and_without_a_hint(target, server):
    token = server.token
    target = target.format(token=token, half=token[: len(token) // 2], swapped=token.swapcase())
    answer = ask(server, target)
    assert (answer.status, answer.body) == (404, b"404 Not Found\n")
    assert token not in str(answer.headers)
    assert "Server" not in answer.headers
    assert ask(server, below(server, "")).status == 200


STORE = "data/0"
CLIMBING = {
    "dots": f"{STORE}/../secret.txt",
    "dots from the token": "../../etc/hostname",
    "dots far up": f"{STORE}/" + "../" * 20 + "etc/hostname",
    "dots inside": f"{STORE}/0/../../secret.txt",
    "dots that stay inside": f"{STORE}/0/../zarr.json",
    "one dot": f"{STORE}/./zarr.json",
    "encoded dots": f"{STORE}/%2e%2e/secret.txt",
    "encoded dots, capital": f"{STORE}/%2E%2E/secret.txt",
    "half encoded": f"{STORE}/.%2e/secret.txt",
    "encoded slash": f"{STORE}/..%2fsecret.txt",
    "encoded slash, harmless": f"{STORE}/0%2fzarr.json",
    "all encoded": f"{STORE}%2f%2e%2e%2fsecret.txt",
    "encoded twice": f"{STORE}/%252e%252e/secret.txt",
    "encoded slash twice": f"{STORE}/%252e%252e%252fsecret.txt",
    "overlong UTF-8": f"{STORE}/%c0%ae%c0%ae/secret.txt",
    "overlong slash": f"{STORE}/..%c0%afsecret.txt",
    "wide dots": f"{STORE}/%ef%bc%8e%ef%bc%8e/secret.txt",
    "backslash": f"{STORE}/..\\secret.txt",
    "encoded backslash": f"{STORE}/..%5csecret.txt",
    "NUL": f"{STORE}/zarr.json%00",
    "NUL before an ending": f"{STORE}/../secret.txt%00.json",
    "newline": f"{STORE}/zarr.json%0a",
    "percent alone": f"{STORE}/zarr.json%",
    "percent without digits": f"{STORE}/%zz/zarr.json",
    "absolute": f"{STORE}//etc/hostname",
    "encoded absolute": f"{STORE}/%2fetc/hostname",
    "empty name": f"{STORE}//zarr.json",
    "slash at the end": f"{STORE}/zarr.json/",
    "semicolon": f"{STORE}/..;/secret.txt",
    "a sibling's prefix": f"{STORE}2/secret.txt",
    "a sibling by dots": f"{STORE}/../a.ome.zarr2/secret.txt",
    "a store that is not named": "data/2/zarr.json",
    "the store's real name": "data/a.ome.zarr/zarr.json",
    "home": f"{STORE}/~/.ssh/id_rsa",
    "very long": f"{STORE}/" + "a" * 5000,
    "very deep": f"{STORE}/" + "a/" * 2000 + "a",
    "link to a file outside": f"{STORE}/link-out",
    "relative link outside": f"{STORE}/link-up",
    "link to the system": f"{STORE}/link-absolute",
    "link to a folder outside": f"{STORE}/folder-out/secret.txt",
    "link to a sibling": f"{STORE}/folder-beside/secret.txt",
    "another store by a link": f"{STORE}/folder-out/b.ome.zarr/zarr.json",
    "link to itself": f"{STORE}/circle",
    "dangling link": f"{STORE}/dangling",
    "device": f"{STORE}/device",
    "FIFO": f"{STORE}/fifo",
    "socket": f"{STORE}/socket",
    "below a file": f"{STORE}/zarr.json/x",
    "folder": STORE,
    "folder with a slash": f"{STORE}/",
    "folder of a level": f"{STORE}/0",
    "folder of chunks": f"{STORE}/0/c/",
    "all stores": "data/",
    "folder of generated files": "data/objects",
    "missing chunk": f"{STORE}/0/c/9/9",
}


@pytest.mark.parametrize("path", CLIMBING.values(), ids=CLIMBING)
def test_no_way_leads_out_of_a_store_or_to_what_is_no_file(path, server):
    answer = ask(server, below(server, path))
    assert (answer.status, answer.body) == (404, b"404 Not Found\n")
    assert ask(server, below(server, CHUNK)).status == 200


def test_links_that_stay_in_the_store_are_followed(server, folder):
    store = folder / "a.ome.zarr"
    for path, target in (("link-in", "zarr.json"), ("folder-in/c/0/0", "0/c/0/0")):
        assert ask(server, below(server, f"data/0/{path}")).body == (store / target).read_bytes()


def test_a_store_that_is_itself_a_link_is_served(tmp_path, folder):
    (tmp_path / "link").symlink_to(folder / "a.ome.zarr")
    with serve(site_of(tmp_path / "link")) as server:
        assert ask(server, below(server, CHUNK)).body == (folder / "a.ome.zarr/0/c/0/0").read_bytes()
        assert ask(server, below(server, "data/0/link-out")).status == 404


def test_a_percent_sign_is_decoded_once_and_names_may_hold_any_letter(tmp_path):
    store = make_site(tmp_path).stores["data/0"]
    for name in ("50% grün", "a b", "%2e%2e", "a+b"):
        Path(store, name).write_text(name)
    with serve(site_of(store)) as server:
        asked = {
            "50%25%20gr%C3%BCn": "50% grün",
            "a%20b": "a b",
            "%252e%252e": "%2e%2e",
            "a+b": "a+b",
            "%61%2b%62": "a+b",
        }
        for path, name in asked.items():
            assert ask(server, below(server, f"data/0/{path}")).body.decode() == name


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"])
def test_other_methods_than_get_and_head_are_refused(method, server, folder):
    target, before = below(server, "data/0/zarr.json"), (folder / "a.ome.zarr/zarr.json").read_bytes()
    answer = ask(server, target, method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert (folder / "a.ome.zarr/zarr.json").read_bytes() == before
    assert ask(server, target).body == before


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "example.org:80",
        "127.0.0.1.example.org",
        "localhost.example.org",
        "localhost@example.org",
        "127.0.0.2",
        "0.0.0.0",
        "[::1]",
        "127.0.0.1:80:80",
    ],
)
def test_a_foreign_name_in_the_host_header_is_refused(host, server):
    assert ask(server, below(server, ""), host=host).status in (400, 403)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost:8080", "127.0.0.1:1", "LOCALHOST:9"])
def test_this_machine_and_a_tunnels_end_are_served(host, server):
    assert ask(server, below(server, ""), host=host).body == PAGE


@pytest.mark.parametrize("hosts", [b"", b"Host: localhost\r\nHost: example.org\r\n", b"Host:\r\n"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_request_needs_exactly_one_host(hosts, version, server):
    request = b"GET " + below(server, "").encode() + b" HTTP/" + version + b"\r\nConnection: close\r\n"
    answer = parse(send(server.port, request + hosts + b"\r\n"))
    assert answer.status in (400, 403)
    assert PAGE not in answer.body
    assert parse(send(server.port, request + b"Host: localhost\r\n\r\n")).body == PAGE


def test_each_answer_forbids_what_a_page_does_not_need(server):
    for path in ("", "view.js", CHUNK, "data/0/missing", "data/0/page.html"):
        headers = ask(server, below(server, path)).headers
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert not [name for name in headers if name.startswith("Access-Control")]


def test_a_page_that_lies_in_a_store_is_bytes_and_ours_are_what_they_are(server):
    assert ask(server, below(server, "data/0/page.html")).headers["Content-Type"] == "application/octet-stream"
    assert ask(server, below(server, "")).headers["Content-Type"].startswith("text/html")
    assert ask(server, below(server, "view.js")).headers["Content-Type"].startswith("text/javascript")
    wasm = next(name for name in client_files() if name.endswith(".wasm"))
    assert ask(server, below(server, wasm)).headers["Content-Type"] == "application/wasm"


def test_the_address_without_its_last_slash_leads_to_the_page(server):
    answer = ask(server, f"/v/{server.token}")
    assert (answer.status, answer.headers["Location"]) == (301, f"/v/{server.token}/")


def test_nobody_can_connect_from_outside_of_this_machine(server):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: says which address this machine has
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address = probe.getsockname()[0]
    assert not address.startswith("127.")
    with pytest.raises(ConnectionRefusedError):
        send(server.port, b"", address)
    with pytest.raises(ConnectionRefusedError):
        send(server.port, b"", "127.0.0.2")
    socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S).close()


# -- ranges and caches -----------------------------------------------------------------------------------------


@given(start=st.integers(0, N_BYTES + 20), length=st.integers(0, N_BYTES + 20))
def test_any_range_is_the_slice_that_python_cuts(start, length, server, folder):
    content = (folder / "a.ome.zarr/noise").read_bytes()
    asked = {
        f"bytes={start}-{start + length}": content[start : start + length + 1],
        f"bytes={start}-": content[start:],
        f"bytes=-{length}": content[-length:] if length else b"",
    }
    for header, expected in asked.items():
        answer = ask(server, below(server, "data/0/noise"), Range=header)
        if expected:
            first = N_BYTES - len(expected) if header == f"bytes=-{length}" else start
            told = f"bytes {first}-{first + len(expected) - 1}/{N_BYTES}"
            assert (answer.status, answer.body, answer.headers["Content-Range"]) == (206, expected, told)
        else:
            assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{N_BYTES}")


@pytest.mark.parametrize(
    "header",
    ["bytes=0-1,4-5", "lines=0-1", "bytes=5-2", "bytes=-", "bytes", "bytes=a-b", "bytes=0-1x", "", "bytes=1--2", "0-1"],
)
def test_what_is_not_one_range_is_answered_by_the_whole_file(header, server):
    answer = ask(server, below(server, "data/0/noise"), Range=header)
    assert (answer.status, len(answer.body)) == (200, N_BYTES)


def test_an_empty_file_is_there_but_has_no_range(server):
    """To Zarr a shard that is missing is background; one that was cut off must be an error."""
    assert ask(server, below(server, "data/0/empty")).status == 200
    assert ask(server, below(server, "data/0/empty"), Range="bytes=-4").status == 416


@given(st.text("bytes=-,0123456789 x", max_size=30), st.integers(0, 1000))
def test_no_range_header_is_too_odd(header, size):
    try:
        found = parse_range(header, size)
    except UnsatisfiableRangeError:
        return
    assert found is None or 0 <= found[0] < found[1] <= size


def test_a_number_of_many_digits_is_no_range_or_beyond_the_end():
    with pytest.raises(UnsatisfiableRangeError):
        parse_range(f"bytes={'9' * 4000}-", 10)
    assert parse_range(f"bytes=0-{'9' * 4000}", 10) == (0, 10)
    assert parse_range(f"bytes=0-{'9' * 5000}", 10) is None


def test_a_browser_keeps_what_it_has_until_it_changes(tmp_path):
    store = Path(make_site(tmp_path).stores["data/0"])
    with serve(site_of(store)) as server:
        target = below(server, CHUNK)
        first = ask(server, target)
        assert first.headers["Cache-Control"] == "no-cache"
        tag = first.headers["Etag"]
        unchanged = ask(server, target, If_None_Match=tag)
        assert (unchanged.status, unchanged.body) == (304, b"")
        assert ask(server, target, Range="bytes=0-3", If_Range=tag).status == 206
        aside = store / "0/c/0/aside"
        aside.write_bytes(first.body[::-1])
        aside.replace(store / "0/c/0/0")
        changed = ask(server, target, If_None_Match=tag)
        assert (changed.status, changed.body) == (200, first.body[::-1])
        assert ask(server, target, Range="bytes=0-3", If_Range=tag).status == 200  # parts of two versions do not mix


def test_only_files_whose_name_tells_their_content_are_kept_for_ever(server):
    for name in client_files():
        assert "immutable" in ask(server, below(server, name), "HEAD").headers["Cache-Control"]
    for path in ("", "view.js", "data/objects/info", CHUNK):
        assert ask(server, below(server, path), "HEAD").headers["Cache-Control"] == "no-cache"


# -- disturbances ----------------------------------------------------------------------------------------------


def test_a_file_that_is_replaced_while_it_is_sent_arrives_as_it_was(tmp_path):
    store = Path(make_site(tmp_path).stores["data/0"])
    old = np.random.default_rng(0).bytes(64 << 20)  # more than the system holds back for a client that does not read
    (store / "large").write_bytes(old)
    with serve(site_of(store)) as server, begin_download(server, "data/0/large") as connection:
        got = connection.recv(1000)
        (store / "new").write_bytes(b"new")
        (store / "new").replace(store / "large")
        rest = read_to_end(connection)
        assert (got + rest).partition(b"\r\n\r\n")[2] == old
        assert ask(server, below(server, "data/0/large")).body == b"new"


def test_a_file_that_is_cut_off_while_it_is_sent_ends_the_connection(tmp_path):
    store = Path(make_site(tmp_path).stores["data/0"])
    size = 64 << 20
    (store / "large").write_bytes(bytes(size))
    with serve(site_of(store)) as server, begin_download(server, "data/0/large") as connection:
        got = connection.recv(1000)
        os.truncate(store / "large", 10)
        body = (got + read_to_end(connection)).partition(b"\r\n\r\n")[2]
        assert len(body) < size
        assert ask(server, below(server, "data/0/large")).body == bytes(10)


def test_clients_that_go_away_leave_no_trace(folder, caplog, capfd):
    (folder / "a.ome.zarr/large").write_bytes(bytes(32 << 20))
    with serve(site_of(folder / "a.ome.zarr")) as server:
        for _ in range(5):
            with begin_download(server, "data/0/large") as connection:
                connection.recv(10)
        send_what_is_odd(server)
        assert ask(server, below(server, CHUNK)).status == 200
    assert not caplog.records  # now that it has ended, nothing more can be said
    assert capfd.readouterr() == ("", "")


def send_what_is_odd(server):
    for odd in (b"", b"\x16\x03\x01", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 100, b"GET / HTTP/1.1\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
            connection.sendall(odd)


def test_more_connections_than_any_browser_opens_are_hung_up_on(folder, monkeypatch):
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 3)
    with serve(site_of(folder / "a.ome.zarr")) as server:
        with contextlib.ExitStack() as stack:
            few = [stack.enter_context(begin_download(server, "view.js", goes_on=True)) for _ in range(3)]
            assert all(connection.recv(4) == b"HTTP" for connection in few)
            with begin_download(server, "view.js") as connection:
                assert hung_up(connection)
        until_answered(server)  # what was closed counts no more


def hung_up(connection):
    try:
        return connection.recv(4) == b""
    except ConnectionResetError:
        return True


def until_answered(server):
    """The server learns a little later that its clients are gone."""
    ends = time.monotonic() + DEADLINE_S
    while True:
        with begin_download(server, "view.js") as connection:
            if not hung_up(connection):
                return
        assert time.monotonic() < ends, "what was closed still counts"


def test_readers_are_not_waited_for_and_cancel_what_has_not_begun():
    begun, go_on = threading.Event(), threading.Event()
    readers = Readers(1, "reader")
    hanging = readers.submit(lambda: (begun.set(), go_on.wait(DEADLINE_S)))
    waiting = readers.submit(int)
    assert begun.wait(DEADLINE_S)
    readers.close()
    assert readers.submit(int).cancelled()
    assert not hanging.done()
    go_on.set()
    assert hanging.result(DEADLINE_S)
    with pytest.raises(CancelledError):
        waiting.result(DEADLINE_S)


def test_a_store_that_hangs_keeps_only_its_own_readers_waiting(folder, monkeypatch):
    from segment_slide.pipeline.served_files.local_files import LocalFiles

    go_on, n_waiting = threading.Event(), threading.Semaphore(0)
    open_now = LocalFiles.open

    def open_late(self, key):
        if key == "hanging":
            n_waiting.release()
            go_on.wait(DEADLINE_S)
        return open_now(self, key)

    monkeypatch.setattr(LocalFiles, "open", open_late)
    with serve(site_of(folder / "a.ome.zarr", folder / "b.ome.zarr")) as server, contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(begin_download(server, "data/0/hanging"))
        assert n_waiting.acquire(timeout=DEADLINE_S)
        assert ask(server, below(server, "data/1/0/c/0/0")).status == 200
        assert ask(server, below(server, "")).body == PAGE
        go_on.set()


def test_a_file_that_cannot_be_read_is_not_told_as_missing(server, monkeypatch, caplog):
    """A missing chunk is background."""

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    answer = ask(server, below(server, CHUNK))
    assert (answer.status, answer.body) == (500, b"500 Internal Server Error\n")
    assert "Content-Range" not in ask(server, below(server, CHUNK), Range="bytes=0-3").headers
    assert "Input/output error" in caplog.text
    assert "Traceback" not in caplog.text


def test_many_ask_at_once(server, folder):
    expected, wrong = (folder / "a.ome.zarr/0/c/0/0").read_bytes(), []

    def keep_asking():
        wrong.extend(1 for _ in range(20) if ask(server, below(server, CHUNK)).body != expected)

    threads = [threading.Thread(target=keep_asking) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_closed_server_lets_go_of_its_port_and_its_threads(folder):
    before = set(threading.enumerate())
    with serve(site_of(folder / "a.ome.zarr")) as server:
        assert ask(server, below(server, CHUNK)).status == 200
        idle = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)
    with idle:
        assert idle.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        send(server.port, b"")
    for thread in set(threading.enumerate()) - before:
        thread.join(DEADLINE_S)
    assert set(threading.enumerate()) <= before
    server.close()  # once more does nothing
    with serve(site_of(), port=server.port) as again:
        assert again.port == server.port
        assert again.token != server.token
        assert ask(again, f"/v/{server.token}/").status == 404


def test_a_port_that_is_taken_is_refused_with_what_to_do(server):
    with pytest.raises(InputError, match=rf"port={server.port} cannot be used: Address already in use. .*leave it out"):
        serve(site_of(), port=server.port)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(InputError, match="expected 0 to 65535"):
        serve(site_of(), port=port)


# -- what is served is below the root --------------------------------------------------------------------------

NAMES = ["..", ".", "", "0", "c", "zarr.json", "secret.txt", "a.ome.zarr", "link-out", "folder-out", "folder-in", "~"]
ENCODE = [str, lambda name: "".join(f"%{ord(letter):02x}" for letter in name), lambda name: name.replace(".", "%2E")]


@given(
    parts=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(ENCODE)), max_size=6),
    slash=st.sampled_from(["/", "%2f", "//", "\\"]),
)
def test_whatever_is_asked_what_is_served_lies_below_the_store_and_is_its_file(parts, slash, server, folder):
    root = folder / "a.ome.zarr"
    path = slash.join(encode(name) for name, encode in parts)
    answer = ask(server, below(server, f"data/0/{path}"))
    assert answer.status in (200, 404)
    if answer.status == 200:
        file = root.joinpath(*(name for name, _ in parts)).resolve()
        assert file.is_relative_to(root.resolve())
        assert answer.body == file.read_bytes()
    assert SECRET not in answer.body


@given(raw=st.binary(max_size=60).filter(lambda raw: not set(raw) & set(b" \r\n?")))
def test_no_bytes_in_an_address_do_harm(raw, server):
    answer = ask(server, below(server, "data/0/").encode() + raw)
    assert answer.status in (400, 404)
    assert SECRET not in answer.body


@contextlib.contextmanager
def begin_download(server: ViewServer, path: str, *, goes_on: bool = False) -> Iterator[socket.socket]:
    """A connection on which a file was asked for; it may stay open afterwards."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        end = "" if goes_on else "Connection: close\r\n"
        request = f"GET {below(server, path)} HTTP/1.1\r\nHost: localhost\r\n{end}\r\n"
        connection.sendall(request.encode())
        yield connection


def read_to_end(connection: socket.socket) -> bytes:
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 20):
            pieces.append(piece)
    return b"".join(pieces)
