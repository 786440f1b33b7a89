"""The command that shows a segmentation: what it says, how it ends, what it leaves behind."""

import contextlib
import getpass
import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import view as flow
from flows.view import tunnel_command
from tests.flows.support import noise, run_here, start, tree, write_ome, write_segmentation

DEADLINE_S = 240  # for what hangs


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """A segmentation whose record leads to its image."""
    folder = tmp_path_factory.mktemp("view")
    slide = write_ome(folder / "slide.ome.zarr", noise(100, 130), "yx")
    out = write_segmentation(folder / "out.ome.zarr", (noise(100, 130) > 99).astype("uint8"))
    metadata = out / "labels/segmentation/zarr.json"
    metadata.write_text(metadata.read_text().replace('"slide.ome.zarr"', json.dumps(str(slide))))
    return out


def start_view(*arguments: object, **environment: str) -> tuple[subprocess.Popen[str], list[str]]:
    """A running viewer, with what it printed up to its last line."""
    process = start("view", *arguments, "--no-browser", **environment)
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
    monkeypatch.setattr(flow.webbrowser, "open", opened.append)
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process, lines = start_view(output, "--port", port)
    assert url_in(lines).startswith(f"http://127.0.0.1:{port}/v/")
    process.terminate()
    process.communicate(timeout=DEADLINE_S)


REFUSED = {
    "nothing there": (("nowhere.ome.zarr",), "nowhere.ome.zarr"),
    "links without export": (("OUT", "--hard-links"), "without --export"),
    "port of an export": (("OUT", "--export", "web", "--port", 8080), "--export was given together with"),
    "browser of an export": (("OUT", "--export", "web", "--no-browser"), "--export was given together with"),
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
import sys, flows.cli, flows.cli_view, flows.view
from pipeline.view import describe_view
from pipeline.view_server import serve
with serve(describe_view({str(output)!r})):
    print(sorted({{"torch", "prefect", "dask", "distributed", "skimage", "matplotlib"}} & set(sys.modules)))
    print("zarr" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=DEADLINE_S)
    assert found.stdout.split() == ["[]", "True"]
