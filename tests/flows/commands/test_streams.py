"""Streams that cannot be written: the work goes on."""

import os
import signal
import subprocess
import sys

import pytest

from segment_slide.flows.commands import main
from tests.flows.support import noise, run_here, write_array

CODE = """
import sys
from segment_slide.flows.commands.streams import find_fault, mend_streams
mend_streams()
with open({file!r}, "w") as file:
    print({said!r}, flush=True)
    print({said!r}, file=sys.stderr)
    file.write(f"{{file.fileno() > 2}} {{find_fault(sys.stdout)}}")
"""


def run(shell: str, folder, said: str = "text", **variables: str) -> tuple[int, bytes, str]:
    """Exit code, output, and what a program that prints could write into its file."""
    file = folder / "file"
    command = ["bash", "-c", f"set -o pipefail; {shell.format(chr(34) + '$@' + chr(34))}", "bash", sys.executable, "-c"]
    done = subprocess.run(
        [*command, CODE.format(file=str(file), said=said)],
        stdout=subprocess.PIPE,
        env={**os.environ, **variables},
        check=False,
    )
    return done.returncode, done.stdout, file.read_text()


@pytest.mark.parametrize(
    ("shell", "fault"),
    [
        ("{} >&-", "None"),
        ("{} <&- >&- 2>&-", "None"),
        ("{} >/dev/full 2>/dev/full", "[Errno 28] No space left on device"),
        ("{} | true", None),
    ],
)
def test_a_stream_that_cannot_be_written_is_no_error_and_no_file_gets_its_number(shell, fault, tmp_path):
    code, _, written = run(shell, tmp_path)
    assert code == 0
    is_above, _, found = written.partition(" ")
    assert is_above == "True"
    assert fault is None or found == fault


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "4 × 2 µm – é ".encode() + b"\xe9"),
        ("latin-1", "4 × 2 µm - é ".encode("latin-1") + b"\xe9"),
        ("ascii", b"4 x 2 um - ? \xe9"),
    ],
)
def test_characters_that_an_encoding_lacks_have_others(encoding, expected, tmp_path):
    code, out, _ = run("{}", tmp_path, "4 × 2 µm – é \udce9", PYTHONIOENCODING=encoding)
    assert (code, out) == (0, expected + b"\n")


@pytest.mark.parametrize(("target", "code"), [("full", 1), ("pipe", 141)])
def test_a_command_that_only_prints_says_that_it_could_not(target, code, tmp_path):
    slide = write_array(tmp_path / "slide.zarr", noise(40, 50))
    command = f"{os.path.dirname(sys.executable)}/segment-slide info {slide}"
    shell = f"{command} >/dev/full" if target == "full" else f"{command} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr == (
        "Note: not everything could be printed: No space left on device (standard output).\n" if code == 1 else ""
    )
    assert run_here("info", slide).exit_code == 0


def test_a_folder_that_was_deleted_is_no_place_to_run(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"cd {gone} && rmdir {gone} && {os.path.dirname(sys.executable)}/segment-slide info slide.zarr"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: the current folder was deleted")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_terminal_that_closes_ends_a_command_unless_it_is_started_with_nohup(is_ignored, monkeypatch):
    before = {number: signal.signal(number, signal.SIG_DFL) for number in main.ENDINGS}
    seen = []
    monkeypatch.setattr(main, "app", lambda: seen.append(signal.getsignal(signal.SIGHUP)) or os.kill(os.getpid(), 1))
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
        if is_ignored:
            main.main()
            assert seen == [signal.SIG_IGN]
        else:
            with pytest.raises(SystemExit) as end:
                main.main()
            assert end.value.code == 129
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # the shell may send another one
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_signal_that_a_library_turns_into_an_error_of_its_own_ends_the_command_as_the_signal(monkeypatch, capsys):
    """A module in C that is being loaded when the signal comes raises ImportError from it."""

    def load():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except SystemExit as error:
            raise ImportError("initialization failed") from error

    before = {number: signal.signal(number, signal.SIG_DFL) for number in main.ENDINGS}
    monkeypatch.setattr(main, "ended_by", [])
    monkeypatch.setattr(main, "app", load)
    try:
        with pytest.raises(SystemExit) as end:
            main.main()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert end.value.code == 143
    assert capsys.readouterr().err.startswith("Interrupted.")
    monkeypatch.setattr(main, "app", lambda: 1 / 0)
    monkeypatch.setattr(main, "ended_by", [])
    with pytest.raises(ZeroDivisionError):
        main.main()
