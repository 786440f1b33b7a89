"""Fenced blocks of the README and the documentation: found, split into commands, run, compared with what they show."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

COMMANDS = ("console", "sh", "bash")
_ANYTHING = "…"
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_MEASURED_ANEW = re.compile(r" ?(?:s|ms|min|Mpx/s|KiB|MiB|GiB)\b")
_TOLERANCE = 0.1  # of numbers that depend on the processor: scores, and how many objects were found
_COUNTS_OBJECTS = re.compile(r"\bobjects\b|^\w+(\s+[\d,]+){2}\s")  # a sentence, or a row of the table of objects
_LONGEST_S = 1800


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, its lines."""

    page: str
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Step:
    """What is run at a time, a command or a block of Python, and the lines that it is said to print."""

    block: Block
    text: str
    expected: tuple[str, ...] = ()

    @property
    def is_python(self) -> bool:
        return self.block.language == "python"


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    name, found, fence, language, start, lines = str(page.relative_to(ROOT)), [], "", "", 0, []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        opening = re.match(r"\s*(```+)\s*(\S*)", line)
        if not fence and opening:
            fence, language, start, lines = opening[1], opening[2], number, []
        elif fence and line.strip() == fence:
            found.append(Block(name, start, language, "\n".join(lines)))
            fence = ""
        elif fence:
            lines.append(line)
    assert not fence, f"{name}:{start} is never closed"
    return found


def steps_of(page: Path) -> list[Step]:
    """What a page runs, in order; a block of text after Python is what that prints."""
    steps: list[Step] = []
    for block in blocks_of(page):
        if block.language in COMMANDS:
            steps += commands_of(block)
        elif block.language == "python":
            steps.append(Step(block, block.text))
        elif block.language == "text" and steps and steps[-1].is_python:
            steps[-1] = Step(steps[-1].block, steps[-1].text, tuple(block.text.splitlines()))
    return steps


def commands_of(block: Block) -> Iterator[Step]:
    """``$`` begins a command, a backslash at the end of a line continues it, all else is what it prints."""
    command, printed, continued = "", [], False
    for line in block.text.splitlines():
        if line.startswith("$ "):
            if command:
                yield Step(block, command, tuple(printed))
            command, printed = line[2:], []
        elif continued:
            command += "\n" + line
        else:
            assert command, f"{block.where} begins with what nothing printed: {line}"
            printed.append(line)
        continued = line.endswith("\\") and not printed
    if command:
        yield Step(block, command, tuple(printed))


def run_step(step: Step, folder: Path) -> str:
    """Run in a folder as a reader would; its output, all of it, if it succeeded."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "NO_COLOR": "1"}
    if step.is_python:
        script = folder / "block.py"
        script.write_text(step.text + "\n")
        command = [sys.executable, script.name]
    elif re.match(r"segment-slide view\b(?!.*--export)", step.text):
        return _run_viewer(step, folder, environment)
    else:
        command = ["bash", "-euo", "pipefail", "-c", step.text]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_LONGEST_S,
        check=False,
    )
    assert done.returncode == 0, f"{step.block.where} ended with {done.returncode}:\n{step.text}\n{done.stdout}"
    return done.stdout


def _run_viewer(step: Step, folder: Path, environment: dict[str, str]) -> str:
    """Start the viewer without a browser, read its address, and end it as Ctrl-C does."""
    command = f"exec {step.text} --no-browser" if "--no-browser" not in step.text else f"exec {step.text}"
    viewer = subprocess.Popen(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    printed = []
    try:
        for line in viewer.stdout:
            printed.append(line)
            if "Ctrl-C" in line:
                break
        viewer.send_signal(signal.SIGINT)
        rest, _ = viewer.communicate(timeout=120)
    finally:
        viewer.kill()
    output = "".join(printed) + rest
    assert viewer.returncode in (0, 130), f"{step.block.where} ended with {viewer.returncode}:\n{output}"
    assert "http://127.0.0.1" in output
    return output


def check_output(step: Step, output: str) -> None:
    """Every line that the page shows was printed, in this order; ``…`` stands for anything, also for lines."""
    actual = iter(output.splitlines())
    for line in step.expected:
        if line.strip() not in ("", _ANYTHING):
            assert any(is_like(line, other) for other in actual), (
                f"{step.block.where}: not printed, or not there: {line}\nby {step.text}\n{output}"
            )


def is_like(shown: str, printed: str) -> bool:
    """Whether a printed line is the shown one, but for what differs from machine to machine.

    Spaces count as one. Whole numbers are the same (shapes, steps, blocks), but where objects are counted; these and
    numbers with a decimal point may differ by a tenth, a time, rate or memory by anything.
    """
    shown, pattern, numbers, at = shown.strip(), "", [], 0
    for match in re.finditer(rf"{_NUMBER.pattern}|{_ANYTHING}|\s+", shown):
        pattern += re.escape(shown[at : match.start()])
        at = match.end()
        if match[0] == _ANYTHING:
            pattern += ".*"
        elif match[0].isspace():
            pattern += r"\s+"
        else:
            pattern += f"({_NUMBER.pattern})"
            numbers.append((match[0], bool(_MEASURED_ANEW.match(shown, at))))
    found = re.fullmatch(pattern + re.escape(shown[at:]), printed.strip())
    counts = bool(_COUNTS_OBJECTS.search(shown))
    return found is not None and all(
        anew or _is_near(number, other, _TOLERANCE if counts or "." in number else 0.0)
        for (number, anew), other in zip(numbers, found.groups(), strict=True)
    )


def _is_near(shown: str, printed: str, tolerance: float) -> bool:
    return abs(_value(shown) - _value(printed)) <= tolerance * abs(_value(shown)) + 1e-9


def _value(text: str) -> float:
    return float(text.replace(",", ""))
