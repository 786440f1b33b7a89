"""From what benchmarks printed to one page: tables, pictures, ratios, and what differs from another report's.

`run_all.py` runs them; this only reads what they left. Nothing is measured here.
"""

import ast
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common import markdown_table

DIFFERS = 0.15  # medians of two quiet runs differ by less
MOST_LINES = 60  # of a script that prints no table
LEFT_OUT = "left out"  # begins the outcome of a script that this machine cannot run


@dataclass
class Run:
    """One script, as it went.

    Attributes
    ----------
    name, command : str
        Which, and how to run it alone.
    outcome : str
        "done", or why not.
    seconds, load : float
        Wall time; load of the machine before it.
    ratios : dict
        Figures over what was measured beside them.
    values : dict
        What else the script kept.
    pictures : list of str
        Relative to the report.
    """

    name: str
    command: str
    outcome: str
    seconds: float
    load: float
    ratios: dict[str, float] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    pictures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """What a figure should be.

    Parameters
    ----------
    what : str
        In words.
    script, names : str
        Where it is measured; a regular expression of names of ratios and values, of which the worst counts.
    least, most : float
        Bounds.
    """

    what: str
    script: str
    names: str
    least: float = -math.inf
    most: float = math.inf

    def judge(self, runs: "Sequence[Run]") -> list[str]:
        """A row: what, where, the worst figure, met or missed."""
        figures = [
            (value, name)
            for run in runs
            if run.name == self.script
            for name, value in {**run.values, **run.ratios}.items()
            if isinstance(value, int | float) and re.search(self.names, name)
        ]
        if not figures:
            return [self.what, self.script, "", "not measured"]
        (value, name) = min(figures) if self.least > -math.inf else max(figures)
        outcome = "met" if self.least <= value <= self.most else "**missed**"
        return [self.what, f"{self.script}: {name}", f"{value:.4g}", outcome]


OTHERS = r"^(nnU-Net|torch-em|dask|TIAToolbox|a patch)"
TARGETS = (
    Target("3 times as fast as MONAI's sliding windows, float32", "peers", r"^MONAI, overlap.*: s over ours$", least=3),
    Target("5 times as fast as each other peer, float32", "peers", OTHERS + r".*: s over ours$", least=5),
    Target("3 times as fast as MONAI's, as installed", "peers", r"^MONAI, overlap.*: s over ours in bfloat16", least=3),
    Target("5 times as fast as each other, as installed", "peers", OTHERS + r".*: s over ours in bfloat16", least=5),
    Target("the whole image's labels, float32", "peers", r"^segment-slide(, tiles .*)?, float32: other labels", most=0),
    Target("bfloat16 takes 1/1.7 of float32's time", "limits", r"^bfloat16 over float32 on ISBI", most=1 / 1.7),
    Target("bfloat16 gives 99.9 % equal labels", "limits", r"^equal labels of bfloat16", least=99.9),
    Target("512 x 512 px with the paper's network in 1 s", "limits", r"^512 x 512.*bfloat16, tile 256.*, s$", most=1),
    Target("95 % of the forward passes' rate, Zarr to Zarr", "overhead", r"^pipeline over.*wall", most=1 / 0.95),
    Target("60 % of a GPU's matrix rate on 4096 px blocks", "limits", r"^GPU: of the best", least=0.6),
    Target("cost per pixel flat within 10 %, wall", "flat", r"^wall, ", most=1.1),
    Target("cost per pixel flat within 10 %, processor", "flat", r"^processor, ", most=1.1),
)  # fmt: skip


# -- what a script left --------------------------------------------------------------------------------------------


def purpose(script: Path) -> str:
    """The first line of a script's own text."""
    return (ast.get_docstring(ast.parse(script.read_text())) or script.stem).splitlines()[0]


def split_cells(line: str) -> list[str]:
    """Cells of a line of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def find_tables(text: str) -> Iterator[tuple[str, list[str]]]:
    """(line before it, lines) of each Markdown table in a text."""
    before, table = "", []
    for line in [*text.splitlines(), ""]:
        if line.lstrip().startswith("|"):
            table.append(line.strip())
            continue
        if table:
            yield before, table
            table = []
            before = ""
        if line.strip():
            before = line.strip()


def ratios_of_table(lines: Sequence[str]) -> dict[str, float]:
    """Figures of columns that are called "ratio", by row and by the column before.

    >>> ratios_of_table(["| way | s | ratio |", "|---|--:|--:|", "| ours | 2.0 | 0.50 |"])
    {'ours: s': 0.5}
    """
    headings, rows = split_cells(lines[0]), [split_cells(line) for line in lines[2:]]
    is_unique = len({row[0] for row in rows}) == len(rows)
    found = {}
    for row in rows:
        name = row[0] if is_unique else ", ".join(row[:2])
        for position, heading in enumerate(headings[: len(row)]):
            if heading.startswith("ratio") and position:
                try:
                    found[f"{name}: {headings[position - 1]}"] = float(row[position])
                except ValueError:  # an empty cell: nothing to divide by
                    continue
    return found


def find_ratios(
    text: str, folder: Path, patterns: Sequence[tuple[str, str]]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Ratios and values of a script: what it wrote as JSON, else what its tables and lines say.

    Parameters
    ----------
    text : str
        What it printed.
    folder : Path
        Where it may have left figures.json.
    patterns : sequence of (str, str)
        Name and regular expression of a line's ratio; of two groups the first belongs to the name.
    """
    if (path := folder / "figures.json").exists():
        content = json.loads(path.read_text())
        return content["ratios"], content["values"]
    found: dict[str, float] = {}
    for _, table in find_tables(text):
        found |= ratios_of_table(table)
    for name, pattern in patterns:
        for match in re.finditer(pattern, text):
            *more, value = match.groups()
            found[" ".join([*more, name])] = float(value)
    return found, {}


# -- the page ------------------------------------------------------------------------------------------------------


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> list[tuple[str, str, float, float]]:
    """(script, ratio, there, here) of those that differ by more than `DIFFERS`, the largest difference first."""
    before = {(run["name"], name): value for run in theirs["runs"] for name, value in run["ratios"].items()}
    found = []
    for run in ours["runs"]:
        for name, value in run["ratios"].items():
            old = before.get((run["name"], name))
            if old is not None and abs(value - old) > DIFFERS * max(abs(old), 1e-12):
                found.append((run["name"], name, old, value))
    return sorted(found, key=lambda one: -abs(one[3] - one[2]) / max(abs(one[2]), 1e-12))


def show_comparison(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """What differs, as Markdown."""
    common = sum(
        len(mine["ratios"].keys() & other["ratios"].keys())
        for mine in ours["runs"]
        for other in theirs["runs"]
        if mine["name"] == other["name"]
    )
    differing = compare(ours, theirs)
    machines = [
        f"{key}: {value} there, {ours['machine'].get(key)} here"
        for key, value in theirs["machine"].items()
        if ours["machine"].get(key) != value
    ]
    text = f"{len(differing)} of {common} ratios that both reports have differ by more than {DIFFERS:.0%}.\n"
    if machines:
        text += "\nThe machines differ: " + "; ".join(machines) + ".\n"
    if differing:
        rows = [
            [script, name, f"{old:.3g}", f"{new:.3g}", f"{new / old - 1:+.0%}" if old else ""]
            for script, name, old, new in differing
        ]
        text += "\n" + markdown_table(("script", "ratio", "there", "here", "change"), rows) + "\n"
    return text


def write_report(
    folder: Path, scripts: Path, machine: dict[str, str], runs: Sequence[Run], *, quick: bool, other: Path | None
) -> None:
    """Write report.json and README.md from what is there so far."""
    content = {"machine": machine, "quick": quick, "runs": [asdict(run) for run in runs]}
    (folder / "report.json").write_text(json.dumps(content, indent=1))
    parts = [
        "# Benchmarks\n",
        _explain(quick),
        markdown_table(("machine", ""), [list(item) for item in machine.items()]),
    ]
    rows = [
        [f"[{run.name}](#{run.name})", purpose(scripts / f"{run.name}.py"), run.outcome, f"{run.seconds:.0f}",
         f"{run.load:.1f}", f"{len(run.ratios)}"]
        for run in runs
    ]  # fmt: skip
    parts.append(markdown_table(("script", "what", "outcome", "s", "load before", "ratios"), rows))
    judged = [target.judge(runs) for target in TARGETS]
    parts.append("## Targets\n\n" + markdown_table(("target", "worst of", "figure", ""), judged))
    if other:
        parts.append(f"## Beside {other}\n\n{show_comparison(content, json.loads(other.read_text()))}")
    parts += [_section(folder, run) for run in runs]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n")


def _explain(quick: bool) -> str:
    return (
        "Seconds are this machine's, at this load; **ratios** are of things that ran in turns, beside each other, and "
        "are what may be compared (`make bench`, then `benchmarks/run_all.py --compare OTHER/report.json`)."
        + (" Sizes are the small ones of `--quick`: they show that everything runs, and little more." if quick else "")
    )


def _section(folder: Path, run: Run) -> str:
    """One script: how it was run, tables, pictures, ratios."""
    path = folder / run.name / "stdout.txt"
    text = path.read_text() if path.exists() else ""
    parts = [f"## {run.name}", f"`{run.command}` — {run.outcome}, {run.seconds:.0f} s"]
    tables = list(find_tables(text))
    for title, lines in tables:
        parts += [title, "\n".join(lines)]
    if tables:
        others = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("|")]
        shown = "\n".join(["```text", *others[-MOST_LINES:], "```"])
        parts.append(f"<details><summary>What else it printed</summary>\n\n{shown}\n\n</details>")
    elif text:
        parts.append("\n".join(["```text", *text.splitlines()[-MOST_LINES:], "```"]))
    if run.outcome != "done" and (errors := folder / run.name / "stderr.txt").exists():
        parts.append("\n".join(["```text", *errors.read_text().splitlines()[-15:], "```"]))
    parts += [f"![{Path(picture).stem}]({picture})" for picture in run.pictures]
    if run.ratios:
        rows = [[name, f"{value:.3g}"] for name, value in run.ratios.items()]
        table = markdown_table(("ratio", ""), rows)
        parts.append(f"<details><summary>{len(rows)} ratios</summary>\n\n{table}\n\n</details>")
    return "\n\n".join(part for part in parts if part)
