"""Serve a viewer until its user ends it, or write it into a folder, and print its address."""

import contextlib
import getpass
import os
import shlex
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from segment_slide.flows import browser
from segment_slide.flows.progress import RichStages
from segment_slide.pipeline.blocks.memory import format_bytes
from segment_slide.pipeline.viewer.export import export
from segment_slide.pipeline.viewer.export_copy import Advance
from segment_slide.pipeline.viewer.export_plan import ExportPlan
from segment_slide.pipeline.viewer.server import ADDRESS, serve
from segment_slide.pipeline.viewer.site import Site

_HOSTING = (
    "Host the folder with a web server that answers Range requests (nginx, Apache, Caddy; not Python's http.server), "
    "and open index.html there."
)


def show_view(console: Console, site: Site, *, port: int = 0, browse: bool = True) -> None:
    """Serve a viewer until Ctrl-C or SIGTERM. Both are the normal end, not an error.

    Parameters
    ----------
    console : Console
        Where the address is printed.
    site : Site
        What to show.
    port : int
        Port on 127.0.0.1; 0 takes a free one.
    browse : bool
        Open the browser, if this machine has a screen and the user sits at it.

    Raises
    ------
    InputError
        If the port is not available.
    """
    with _until_ended() as ended, serve(site, port=port) as server:
        _print_notes(console, site)
        console.print(f"Viewer: {server.url}", highlight=False, soft_wrap=True)
        if tunnel := tunnel_command(server.port, os.environ):
            console.print("You came here by SSH. On your own machine run, and leave running:", highlight=False)
            console.print(f"  {escape(tunnel)}", highlight=False, soft_wrap=True)
            console.print("and open the address above there.", highlight=False)
        console.print("Ctrl-C ends it.", highlight=False)
        shown = browse and not tunnel and has_screen(os.environ)
        with browser.opened(server.url, os.environ) if shown else contextlib.nullcontext():
            ended.wait()


class _End:
    """Set by a signal; the main thread waits for it.

    The interpreter writes a byte for each signal (`signal.set_wakeup_fd`), and the wait reads it. This works whichever
    thread receives the signal and whatever the main thread does at that moment. A `threading.Event` would not: its lock
    may be held by the wait that the signal interrupts, and a signal just before the wait does not interrupt it.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def wait(self) -> None:
        while not self.is_set:
            os.read(self._reader, 1)

    def close(self) -> None:
        signal.set_wakeup_fd(self._before)
        os.close(self._reader)
        os.close(self._writer)


@contextlib.contextmanager
def _until_ended() -> Iterator[_End]:
    """Let Ctrl-C and SIGTERM set the yielded object instead of ending the process. A second signal ends it at once.

    After the first signal these handlers stay, because the process is about to end: a second signal then causes no
    traceback.
    """
    ended = _End()

    def end(*_: object) -> None:
        if ended.is_set:
            os._exit(0)
        ended.is_set = True

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        if not ended.is_set:
            for number, handler in before.items():
                signal.signal(number, handler)
        ended.close()


def has_screen(environment: Mapping[str, str]) -> bool:
    """Whether the user would see a browser that opens here. Without a screen, a text browser could take the terminal.

    >>> has_screen({"DISPLAY": ":0"}), has_screen({}), has_screen({"DISPLAY": ":10", "SSH_CONNECTION": "a 1 b 22"})
    (True, False, False)
    """
    return "SSH_CONNECTION" not in environment and bool(
        environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")
    )


def tunnel_command(port: int, environment: Mapping[str, str]) -> str | None:
    """The command to run on the machine that the user sits at, or None if that is this machine.

    In a job of a cluster the SSH connection is the one to the login node, so the command goes through that node.

    Parameters
    ----------
    port : int
        Port on which the viewer is served.
    environment : mapping
        ``SSH_CONNECTION`` holds the client's address and port, then the server's address and port.
    """
    parts = environment.get("SSH_CONNECTION", "").split()
    if len(parts) != 4:
        return None
    user, (host, ssh_port) = _user(), parts[2:]
    options = ["-N", "-L", f"{port}:{ADDRESS}:{port}"]
    if node := environment.get("SLURMD_NODENAME"):
        bracketed = f"[{host}]" if ":" in host else host
        options += ["-J", f"{user}@{bracketed}" + ("" if ssh_port == "22" else f":{ssh_port}")]
        host = node
    elif ssh_port != "22":
        options += ["-p", ssh_port]
    return shlex.join(["ssh", *options, f"{user}@{host}"])


def _user() -> str:
    """The user's name; a container may know only a number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # which error it is depends on the version of Python
        return "USER"


def export_view(console: Console, site: Site, folder: Path, *, hard_links: bool = False) -> None:
    """Write a viewer into a folder, and say how to host it.

    Raises
    ------
    PipelineError
        If the folder cannot be used, or if the disk is too small.
    """
    _print_notes(console, site)
    with contextlib.ExitStack() as stack:
        listing = console.status("Listing files …")
        stack.enter_context(listing)

        def listed(n_files: int) -> None:
            listing.update(f"Listing files … {n_files:,}")

        def begin(plan: ExportPlan, n_kept: int) -> Advance:
            listing.stop()  # a terminal shows one moving line
            advance = stack.enter_context(
                RichStages(console).stage("export", total=plan.n_files, done=n_kept, unit="files")
            )
            written = 0

            def count(n_bytes: int) -> None:
                nonlocal written
                written += n_bytes
                advance(0, note=format_bytes(written))

            return count

        report = export(site, folder, hard_links=hard_links, begin=begin, listed=listed)
    for location in report.empty:
        note = f"No chunk of {location} is stored: all that is seen of it is background. Is that its address?"
        console.print(f"[yellow]Note:[/] {escape(note)}", highlight=False, soft_wrap=True)
    kept = f", {report.n_kept:,} of them from before" if report.n_kept else ""
    linked = f", {report.n_linked:,} of them hard links" if report.n_linked else ""
    lines = (
        f"[bold green]Done:[/] {report.n_files:,} files{kept}{linked}, {format_bytes(report.n_bytes)}",
        f"Viewer: {escape(str(report.folder))}",
        _HOSTING,
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _print_notes(console: Console, site: Site) -> None:
    for note in site.notes:
        console.print(f"[yellow]Note:[/] {escape(note)}", highlight=False, soft_wrap=True)
