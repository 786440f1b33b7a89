"""The command that shows a segmentation: what it says, how it ends, what it leaves behind."""

import contextlib
import getpass
import json
import signal
import socket
import stat
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from segment_slide.flows import browser
from segment_slide.flows import view as flow
from segment_slide.flows.view import tunnel_command
from tests.flows.support import (
    free_port,
    mark_of,
    noise,
    run_here,
    start,
    tree,
    wait_until,
    write_array,
    write_group,
    write_ome,
    write_segmentation,
)

DEADLINE_S = 240  # for what hangs


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """A segmentation whose record leads to its image."""
    folder = tmp_path_factory.mktemp("view")
    slide = write_ome(folder / "slide.ome.zarr", noise(100, 130), "yx")
    out = write_segmentation(folder / "out.ome.zarr", (noise(100, 130) > 99).astype("uint8"))
    metadata = out / "labels/segmentation/zarr.json"
    content = json.loads(metadata.read_text())
    made_of = content["attributes"]["segment_slide"]["input"]
    made_of |= {"location": str(slide), "fingerprint": mark_of(slide, made_of)}
    metadata.write_text(json.dumps(content))
    return out


def start_view(*arguments: object, **environment: str) -> tuple[subprocess.Popen[str], list[str]]:
    """A running viewer, with what it printed up to its last line."""
    return read_start(start("view", *arguments, "--no-browser", **environment))


def read_start(process: subprocess.Popen[str]) -> tuple[subprocess.Popen[str], list[str]]:
    """A process with what it printed up to its last line."""
    watch = threading.Timer(DEADLINE_S, process.kill)
    watch.start()
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("Ctrl-C"):
            break
    watch.cancel()
    assert lines, process.communicate()
    return process, lines


def url_in(lines: list[str]) -> str:
    return next(line.removeprefix("Viewer: ") for line in lines if line.startswith("Viewer: "))


def fetch(url: str) -> bytes:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=DEADLINE_S) as answer:
        return answer.read()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_ended_and_that_is_no_failure(ending, output):
    before = tree(output)
    process, lines = start_view(output)
    url = url_in(lines)
    assert b"view.js" in fetch(url)
    slides = [json.loads(fetch(f"{url}data/{index}/zarr.json")) for index in range(2)]
    assert all("multiscales" in slide["attributes"]["ome"] for slide in slides)
    process.send_signal(ending)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out, err) == (0, "", "")
    assert tree(output) == before
    with pytest.raises(OSError, match="refused"):
        fetch(url)


@pytest.mark.slow
def test_over_ssh_it_says_which_tunnel_to_open(output):
    process, lines = start_view(output, SSH_CONNECTION="203.0.113.7 51000 198.51.100.4 22", DISPLAY=":0")
    port = url_in(lines).split(":")[2].partition("/")[0]
    assert f"  ssh -N -L {port}:127.0.0.1:{port} {getpass.getuser()}@198.51.100.4" in lines
    process.terminate()
    assert process.wait(DEADLINE_S) == 0
    process.communicate()


TUNNELS = {
    "plain": ({"SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 22"}, "{user}@10.0.0.2"),
    "other port": ({"SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 2222"}, "-p 2222 {user}@10.0.0.2"),
    "IPv6": ({"SSH_CONNECTION": "fd00::1 5 fd00::2 22"}, "{user}@fd00::2"),
    "job": (
        {"SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 22", "SLURMD_NODENAME": "gpu7"},
        "-J {user}@10.0.0.2 {user}@gpu7",
    ),
    "job, IPv6": (
        {"SSH_CONNECTION": "fd00::1 5 fd00::2 2222", "SLURMD_NODENAME": "gpu7"},
        "-J '{user}@[fd00::2]:2222' {user}@gpu7",
    ),
}


@pytest.mark.parametrize(("environment", "told"), TUNNELS.values(), ids=TUNNELS)
def test_the_tunnel_leads_to_where_one_came_in(environment, told, monkeypatch):
    monkeypatch.setenv("LOGNAME", "ana")
    assert tunnel_command(4711, environment) == f"ssh -N -L 4711:127.0.0.1:4711 {told.format(user='ana')}"


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 4711"), OSError("No username")])
def test_a_user_without_a_name_is_left_to_be_filled_in(error, monkeypatch):
    def fail():
        raise error

    monkeypatch.setattr(getpass, "getuser", fail)
    told = tunnel_command(4711, {"SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 22"})
    assert told == "ssh -N -L 4711:127.0.0.1:4711 USER@10.0.0.2"


@pytest.mark.parametrize("environment", [{}, {"SSH_CONNECTION": ""}, {"SSH_CONNECTION": "odd"}])
def test_without_ssh_there_is_no_tunnel(environment):
    assert tunnel_command(4711, environment) is None


@pytest.mark.parametrize(
    ("environment", "arguments", "opens"),
    [
        ({"DISPLAY": ":0"}, (), True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, (), True),
        ({"DISPLAY": ":0"}, ("--no-browser",), False),
        ({}, (), False),
        ({"DISPLAY": ":10", "SSH_CONNECTION": "a 1 b 22"}, (), False),
    ],
)
def test_the_browser_opens_where_somebody_sees_it(environment, arguments, opens, output, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    opened = []

    @contextlib.contextmanager
    def note(url, _):
        opened.append(url)
        yield

    monkeypatch.setattr(browser, "opened", note)
    monkeypatch.setattr(flow, "_until_ended", ended_at_once)
    outcome = run_here("view", output, *arguments)
    assert outcome.exit_code == 0
    assert opened == ([url_in(outcome.out.splitlines())] if opens else [])


@contextlib.contextmanager
def ended_at_once() -> Iterator[threading.Event]:
    ended = threading.Event()
    ended.set()
    yield ended


def test_a_port_that_is_taken_is_refused_in_one_sentence(output):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = run_here("view", output, "--no-browser", "--port", port)
    assert outcome.exit_code == 2
    assert f"port={port} cannot be used: Address already in use." in outcome.err
    assert "leave it out" in outcome.err
    assert "Viewer:" not in outcome.out


def test_a_port_that_is_named_is_taken(output):
    port = free_port()
    process, lines = start_view(output, "--port", port)
    assert url_in(lines).startswith(f"http://127.0.0.1:{port}/v/")
    process.terminate()
    process.communicate(timeout=DEADLINE_S)


# -- the browser -----------------------------------------------------------------------------------------------


def start_with_browser(output: Path, folder: Path, script: str) -> tuple[subprocess.Popen[str], list[str]]:
    """A running viewer whose browser is a script that gets the folder as $FOLDER."""
    command = folder / "fake-browser"
    command.write_text(f"#!/bin/sh\nexec >/dev/null 2>&1\n{script}\n")
    command.chmod(0o755)
    session = folder / "session"
    session.mkdir(mode=0o700)
    environment = {"BROWSER": f"{command} %s", "FOLDER": str(folder), "XDG_RUNTIME_DIR": str(session), "DISPLAY": ":0"}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SSH_CONNECTION", raising=False)
        return read_start(start("view", output, **environment))


def argument_lists() -> list[bytes]:
    """The command line of each process of this machine, as every user may read it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            found.append(path.read_bytes())
    return found


def test_other_users_cannot_read_the_address_anywhere(output, tmp_path):
    """Neither in a command line nor in a file; and the browser, which can, comes to the viewer."""
    script = 'echo "$1" > "$FOLDER/address.new"; mv "$FOLDER/address.new" "$FOLDER/address"; '
    script += 'while [ ! -e "$FOLDER/end" ]; do sleep 0.1; done'
    process, lines = start_with_browser(output, tmp_path, script)
    try:
        url = url_in(lines)
        token = url.rstrip("/").rpartition("/")[2]
        wait_until((tmp_path / "address").exists, process, DEADLINE_S)
        address = (tmp_path / "address").read_text().strip()
        assert address.startswith("file:///")
        assert token not in address
        running = argument_lists()
        assert any(address.encode() in arguments for arguments in running)  # the browser is seen
        assert not any(token.encode() in arguments for arguments in running)
        page = Path(urllib.parse.unquote(address.removeprefix("file://")))
        assert f'content="0; url={url}"' in page.read_text()
        holders = [path for path in tmp_path.rglob("*") if path.is_file() and token in path.read_text()]
        assert holders == [page]
        assert stat.S_IMODE(page.stat().st_mode) == 0o600
        assert stat.S_IMODE(page.parent.stat().st_mode) == 0o700
        process.send_signal(signal.SIGINT)  # the browser's command has not ended
        out, err = process.communicate(timeout=DEADLINE_S)
        assert (process.returncode, out, err) == (0, "", "")
        assert list((tmp_path / "session").iterdir()) == []
    finally:
        (tmp_path / "end").touch()
        process.kill()


def test_without_a_folder_of_the_session_the_page_lies_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for environment in ({}, {"XDG_RUNTIME_DIR": str(tmp_path / "missing")}):
        with browser._redirect("http://127.0.0.1:1/v/a/", environment) as page:
            assert page.parent.parent == tmp_path / ".cache/segment-slide"
            assert stat.S_IMODE(page.parent.stat().st_mode) == 0o700
        assert not page.parent.exists()


@pytest.mark.slow
@pytest.mark.parametrize("script", ["exit 1", "kill -9 $$"])
def test_a_browser_that_fails_does_not_end_the_viewer(script, output, tmp_path):
    process, lines = start_with_browser(output, tmp_path, script)
    assert b"view.js" in fetch(url_in(lines))
    process.terminate()
    assert process.wait(DEADLINE_S) == 0
    assert "Traceback" not in process.communicate()[1]


# -- its end ---------------------------------------------------------------------------------------------------


@pytest.fixture
def _own_handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("_own_handlers")
def test_a_signal_that_another_thread_receives_ends_the_wait():
    def send():
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    with flow._until_ended() as ended:
        threading.Timer(0.3, send).start()
        ended.wait()
    assert ended.is_set


_HANGING = """
import sys, threading
from pathlib import Path
from segment_slide.flows.commands import main
from segment_slide.pipeline.viewer import describe as view
from segment_slide.pipeline.served_files.local_files import LocalFiles

marker, output = sys.argv[1:]
describe = view.describe_view

def hang(self, key):
    Path(marker).touch()
    threading.Event().wait()

def describe_then_hang(*arguments, **options):
    site = describe(*arguments, **options)
    LocalFiles.open = hang
    return site

view.describe_view = describe_then_hang
sys.argv = ["segment-slide", "view", output, "--no-browser"]
main.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("n_signals", [1, 2])
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_while_a_store_hangs(ending, n_signals, output, tmp_path):
    """As a network disk does that has gone away; nor does asking twice show where in the program one was."""
    marker = tmp_path / "hangs"
    process, lines = read_start(
        subprocess.Popen(
            [sys.executable, "-c", _HANGING, str(marker), str(output)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    url = urllib.parse.urlsplit(url_in(lines))
    with socket.create_connection(("127.0.0.1", url.port), timeout=DEADLINE_S) as connection:
        connection.sendall(f"GET {url.path}data/0/zarr.json HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(marker.exists, process, DEADLINE_S)
        for _ in range(n_signals):
            process.send_signal(ending)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out, err) == (0, "", "")


REFUSED = {
    "nothing there": (("nowhere.ome.zarr",), "nowhere.ome.zarr"),
    "links without export": (("OUT", "--hard-links"), "without --export"),
    "port of an export": (("OUT", "--export", "web", "--port", 8080), "--export was given together with"),
    "browser of an export": (("OUT", "--export", "web", "--no-browser"), "--export was given together with"),
    "export beside the labels of the output": (("OUT", "--export", "OUT/web"), "which is a Zarr store"),
    "export into the output": (("OUT", "--export", "OUT/labels/segmentation/web"), "lie in each other"),
}


@pytest.mark.parametrize(("arguments", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(arguments, says, output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = tree(output)
    outcome = run_here("view", *(str(argument).replace("OUT", str(output)) for argument in arguments))
    assert outcome.exit_code == 2, outcome
    assert says in outcome.err.replace("\n", " ")
    assert "Traceback" not in outcome.err
    assert tree(output) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["array", "group"])
def test_an_array_without_axes_is_refused_without_options_that_are_not_there(form, tmp_path):
    write_array(tmp_path / "bare.zarr/0", noise(20, 20))
    if form == "group":
        write_group(tmp_path / "bare.zarr", {})
    outcome = run_here("view", tmp_path / "bare.zarr" / ("0" if form == "array" else ""), "--no-browser")
    assert outcome.exit_code == 2
    assert "expected OME-Zarr" in outcome.err
    assert "--axes" not in outcome.err


_KILLED = """
import sys, threading
from pathlib import Path
from segment_slide.flows.commands import main
from segment_slide.pipeline.viewer import export_copy

marker, output, folder = sys.argv[1:]
read, lock, begun = export_copy._read, threading.Lock(), []

def read_few(copy, file, start):
    with lock:
        begun.append(copy)
        number = len(begun)
    if number > 3:
        Path(marker).touch()
        threading.Event().wait()
    return read(copy, file, start)

export_copy._read = read_few
sys.argv = ["segment-slide", "view", output, "--export", folder]
main.main()
"""


@pytest.mark.slow
def test_killed_in_the_middle_nothing_looks_whole_and_the_same_command_makes_it_whole(output, tmp_path):
    marker, folder = tmp_path / "in-the-middle", tmp_path / "web"
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(marker), str(output), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(marker.exists, process, DEADLINE_S)
    process.kill()
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert (tmp_path / "web.partial").is_dir()
    assert run_here("view", output, "--export", folder).exit_code == 0
    assert run_here("view", output, "--export", tmp_path / "fresh").exit_code == 0
    assert tree(folder) == tree(tmp_path / "fresh")
    assert {path.name for path in tmp_path.iterdir()} == {marker.name, "web", "fresh"}


@pytest.mark.parametrize("links", [(), ("--hard-links",)])
def test_an_export_says_what_it_wrote_and_how_to_host_it(links, output, tmp_path):
    outcome = run_here("view", output, "--export", tmp_path / "web", *links)
    assert outcome.exit_code == 0, outcome
    n_files = len(tree(tmp_path / "web")) - 1  # but for the mark
    assert f"Done: {n_files} files" in outcome.out
    assert ("hard links" in outcome.out) == bool(links)
    assert f"Viewer: {tmp_path / 'web'}" in outcome.out
    assert "Range requests" in outcome.out
    again = run_here("view", output, "--export", tmp_path / "web")
    assert again.exit_code == 0


def test_showing_an_output_imports_nothing_heavy(output):
    """The page should be there before one wonders where it is; what functions import counts too."""
    code = f"""
import sys, segment_slide.flows.commands.main, segment_slide.flows.commands.view, segment_slide.flows.view
from segment_slide.pipeline.viewer.describe import describe_view
from segment_slide.pipeline.viewer.server import serve
with serve(describe_view({str(output)!r})):
    print(sorted({{"torch", "prefect", "dask", "distributed", "skimage", "matplotlib"}} & set(sys.modules)))
    print("zarr" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=DEADLINE_S)
    assert found.stdout.split() == ["[]", "True"]
