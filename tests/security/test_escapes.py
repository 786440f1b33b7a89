"""Names from files command no terminal: control characters are visible escapes wherever a person reads them."""

import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from segment_slide.flows.commands.streams import SafeText
from segment_slide.flows.show.safe_output import SafeConsole, SafeRecord
from segment_slide.pipeline.errors import InputError, UnknownAxesError, UnreachableError
from segment_slide.pipeline.plain_text import has_commands, neutralise
from tests.flows.support import noise, write_model, write_ome, write_segmentation
from tests.security.world import Fault, run

# Sets the window's title, clears the screen, turns the direction of text, commands with one byte, rings, goes back.
EVIL = "a\x1b]0;owned\x07b\x1b[2Jc\u202egnp.\u2066d\x9b31me\x08\x7f\r\u2028f"
IN_FILE_NAMES = EVIL.replace("\u2028", "")
ESCAPED = r"a\x1b]0;owned\x07b"


def commands_in(text: str) -> set[str]:
    """Characters of a text that a terminal or a browser would obey."""
    return {character for character in text if has_commands(character)}


def pages(folder: Path) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in (*folder.rglob("*.html"), *folder.rglob("view.js"))]


@pytest.fixture(scope="module")
def evil(tmp_path_factory) -> Path:
    """A folder in which everything that can have a name has that one."""
    folder = tmp_path_factory.mktemp("evil") / IN_FILE_NAMES
    folder.mkdir()
    write_model(folder / f"{IN_FILE_NAMES}.safetensors", channel_names=(EVIL,))
    names = [EVIL, f"{EVIL} 2"]
    write_ome(folder / f"{IN_FILE_NAMES}.ome.zarr", noise(2, 40, 50), "cyx", scale=(1, 0.5, 0.5), channels=names)
    classes = np.random.default_rng(1).integers(0, 2, (40, 50)).astype(np.uint8)
    write_segmentation(folder / "out.ome.zarr", classes, scale=(0.5, 0.5))
    channels = {"Channel": {"Name": names}}
    tifffile.imwrite(folder / f"{IN_FILE_NAMES}.ome.tif", noise(2, 40, 50), metadata={"axes": "CYX", **channels})
    (folder / "watch").mkdir()
    tifffile.imwrite(folder / "watch" / f"{IN_FILE_NAMES}.tif", noise(40, 50))
    return folder


def words(folder: Path) -> dict[str, tuple[object, ...]]:
    slide, model = folder / f"{IN_FILE_NAMES}.ome.zarr", folder / f"{IN_FILE_NAMES}.safetensors"
    return {
        "info of an image": ("info", slide),
        "info of a network": ("info", model),
        "plan": ("plan", slide, "-m", model, "--channels", 0),
        "plan without channels": ("plan", slide, "-m", model),
        "a missing file": ("info", folder / f"{EVIL}.zarr"),
        "ingest": ("ingest", folder / f"{IN_FILE_NAMES}.ome.tif", folder / "converted.zarr", "--pixel-size", 1),
        "info of what was converted": ("info", folder / "converted.zarr"),
        "view": ("view", slide, "--export", folder / "page"),
        "a night": ("segment-new", folder / "watch", "-o", folder / "nights", "-m", model, "--dry-run"),
        "instances": ("instances", folder / "out.ome.zarr"),
        "a wrong command": ("info", folder, EVIL),
    }


def test_no_command_prints_or_writes_what_a_terminal_obeys(evil):
    said = ""
    for name, line in words(evil).items():
        outcome = run(*line)
        assert not isinstance(outcome, Fault), (name, outcome.place)
        assert outcome.exit_code in (0, 2), (name, outcome)
        if name != "a wrong command":  # click prints it to a stream that these tests replace
            assert not commands_in(outcome.out + outcome.err), (name, outcome)
        said += outcome.out + outcome.err
    assert ESCAPED in said.replace("\n", ""), "the control: the name is shown, as escapes"
    written = pages(evil / "page")
    assert written
    assert not any(map(commands_in, written))


@pytest.mark.slow
def test_a_real_terminal_gets_no_commands_but_ours(evil):
    """The installed command on a terminal of its own: colours and bars are there, what the names say is not."""
    slide, model = evil / f"{IN_FILE_NAMES}.ome.zarr", evil / f"{IN_FILE_NAMES}.safetensors"
    options = ("-m", model, "--channels", 0, "-o", evil / "new.ome.zarr", "--workers", 1, "--instances", "--measure")
    for line in (("segment", slide, *options), ("report", evil / "new.ome.zarr"), ("info", evil, EVIL)):
        said = on_terminal(*line)
        assert all(bad not in said for bad in ("\x1b]", "\x1b[2J", "\u202e", "\x9b", "\x07", "\x08")), (line[0], said)
        assert "\x1b[" in said, "the control: its own colours are there"
    written = pages(evil / "new.ome.zarr") + pages(evil)
    assert len(written) > 2
    assert not any(map(commands_in, written))


def on_terminal(*arguments: object) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    command = [str(Path(sys.executable).with_name("segment-slide")), *map(str, arguments)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}):
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 65536):
                parts.append(part)
        except OSError:  # Linux says so at the end
            pass
        os.close(ours)
    return b"".join(parts).decode(errors="surrogateescape")


def test_a_console_shows_every_form_of_text_as_escapes_and_keeps_its_own_colours(tmp_path):
    with (tmp_path / "out").open("wb") as file:
        stream = SafeText(file, encoding="utf-8")
        console = SafeConsole(file=stream, force_terminal=True, width=300)
        table = Table(title=EVIL)
        table.add_column(EVIL)
        table.add_row(EVIL)
        table.add_row(Text(f"x{EVIL}"))
        console.print(table)
        console.print(f"[red]{EVIL.replace('[', '')}[/]")
        console.print(EVIL, markup=False)
        with Progress(console=console) as progress:
            progress.add_task(EVIL.replace("[", ""), total=1)
        print(EVIL, file=stream)
        stream.flush()
    said = (tmp_path / "out").read_text(encoding="utf-8")
    assert "\x1b]" not in said
    assert "\x1b[2J" not in said
    assert not commands_in(said) - {"\x1b", "\r"}
    assert "\x1b[31m" in said, "the control: a style of ours"
    assert "\x1b[2K" in said, "the control: a bar moves"
    assert ESCAPED in said


def test_log_records_errors_and_their_tracebacks_hold_no_commands(caplog):
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(SafeRecord)
    try:
        try:
            raise ValueError(EVIL)
        except ValueError:
            logging.getLogger("a_library.worker").exception("lost %s\nERROR: faked", EVIL)
    finally:
        logging.setLogRecordFactory(before)
    assert not commands_in(caplog.text)
    assert ESCAPED in caplog.text
    assert "\n  ERROR: faked" in caplog.text
    for error in (InputError(EVIL), UnreachableError(EVIL), UnknownAxesError(EVIL, EVIL)):
        assert not commands_in(str(error))


def test_each_kind_of_character_becomes_an_escape_and_text_stays_text():
    codes = [*range(32), 127, *range(128, 160), 0x061C, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xE0001]
    for code in codes:
        shown = neutralise(chr(code))
        assert shown.isprintable() or chr(code) in "\t\n", hex(code)
    assert neutralise("\udc9b\udce9") == "\\x9b\udce9", "bytes of C1 in names; by the others files are found"
    persian = "\N{ARABIC LETTER MEEM}\N{ZERO WIDTH NON-JOINER}\N{ARABIC LETTER KHAH}"
    for text in ("Zellkörper µm² – 細胞", "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}", "tab\tline\n", "", persian):
        assert neutralise(text) == text
