"""All benchmarks that a machine can run by itself, one after the other, and a page of what they found.

    make bench                                            bench-report/README.md, an hour on two quiet cores
    python benchmarks/run_all.py --quick                  small sizes, about 5 minutes: does everything run?
    python benchmarks/run_all.py --only scale limits
    python benchmarks/run_all.py --compare OTHER/report.json [--no-run]

Each script runs in a process of its own, with nothing beside it. The page is written anew after each, so that what was
measured is there however it ends. Not among them, because they train for hours or need more than one environment:
paper.py, real.py, instances_peers.py, prices.py. `--compare` says which ratios differ by more than 15 % from another
report's.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench_report import LEFT_OUT, Run, find_ratios, show_comparison, write_report
from common import DATA, describe_machine

SCRIPTS = Path(__file__).parent
DATA_VARIABLE = "SEGMENT_SLIDE_DATA"


@dataclass(frozen=True)
class Entry:
    """A script and its sizes.

    Parameters
    ----------
    name : str
        Of the script.
    words, quick : str
        Its arguments; `{out}` is a folder of its own, `{model}` the option `--model` with the network that was trained
        before, nothing without one. `quick` None: left out of quick runs.
    ratios : tuple of (str, str)
        Names and expressions of ratios in its lines; see `bench_report.find_ratios`.
    needs : str
        A program (name or path), or a folder of SEGMENT_SLIDE_DATA ("data/…"), without which it is left out.
    limit_s : int
        After which it is ended.
    """

    name: str
    words: str = ""
    quick: str | None = ""
    ratios: tuple[tuple[str, str], ...] = ()
    needs: str = ""
    limit_s: int = 900


PEERS_PYTHON = SCRIPTS.parent / ".bench-venv/bin/python"  # `make bench-env`
ENTRIES = (
    Entry("plan"),
    Entry("start", "--output {out}", "--output {out} --rounds 2"),
    Entry("identity", "--output {out}", "--output {out} --rounds 2 --side 2048"),
    Entry("trained", "{trained}", "{trained} --steps 20", needs="data/isbi2012"),
    Entry("peers", "--output {out} --size 4096 {model} --repeats 2 --minutes 25",
          "--output {out} --size 1024 {model} --repeats 1 --peers ours,monai-50,torch-em,dask",
          needs=str(PEERS_PYTHON), limit_s=1800),
    Entry("limits", "--output {out} {model} --tiles 256 512 1024 --limit-s 8",
          "--output {out} {model} --bases 16 --tiles 256 512 --tile 256 --rounds 1 --slices 1 "
          "--only gemm tiles layout precision",
          limit_s=1200),
    Entry("allocator", "--output {out} --rounds 1", "--output {out} --tiles 512 --precision bfloat16 --rounds 1"),
    Entry("flat", "--output {out} --sizes 4096 8192 16384", "--output {out} --sizes 1024 2048"),
    Entry("scale", "--output {out} --blocks 100 1000 --limit-s 10 --windows 4 8 16 --window-blocks 576",
          "--output {out} --blocks 100 256 --workers 2 8 --windows 4 8 16 --window-blocks 256 --limit-s 5"),
    Entry("storage", "--output {out} --size 2048 --rounds 15", "--output {out} --size 2048 --rounds 1"),
    Entry("overhead", "--size 8192 --repeats 2", "--size 2048 --repeats 1 --tile 512",
          (("pipeline over forward passes, wall", r"pipeline / forward = ([\d.]+) wall"),
           ("pipeline over forward passes, processor", r"wall, ([\d.]+) processor"))),
    Entry("timeline", "--output {out}", "--output {out} --size 2048 --tile 512"),
    Entry("threads", "--size 2048 --repeats 3", "--size 1024 --repeats 1"),
    Entry("memory", "--size 8192", "--size 4096 --block 1024", (("peak over the plan", r"= ([\d.]+) of the plan"),)),
    Entry("memory_slope", "--blocks 1600 --few 256", None,
          (("peak, long run over short",
            r"(client \+ scheduler|worker): peak of the long run / of the short one = ([\d.]+)"),)),
    Entry("instances", "--candidates ours scipy --size 2048 8192 --rounds 2 --output {out}/instances.png",
          "--candidates ours scipy --size 2048 --rounds 1 --output {out}/instances.png"),
    Entry("weight_map", "--brute-cells 20 --output {out}/weight_map.png", None,
          (("cells: a transform per cell over ours",
            r"(?m)^ *(\d+) +\d+x\d+ +[\d.]+ +[\d.]+ +\d+ +[\d.]+ +(\d+)"),)),
    Entry("augment", "--rounds 20", "--rounds 3", (("x ours", r"(\S[^\n]*?)  +[\d.]+ samples/s.*?([\d.]+) x ours"),)),
    Entry("split", "--data {data}/dsb2018", "--data {data}/dsb2018", needs="data/dsb2018"),
    Entry("exposures", "", None, (("IoU of auto over constants", r"constants, (\w+) of \d+ images: ([\d.]+)"),),
          "data/dsb2018_stage1", 1800),
    Entry("seam", "--output {out}/seam.png", "--output {out}/seam.png"),
    Entry("chaos", "--runs 5", "--runs 1"),
    Entry("kills", "--folder {out}/kills --output {out} --kills 100 --limit-s 600",
          "--folder {out}/kills --output {out} --kills 10 --installed 0 --limit-s 60"),
    Entry("flow_overhead", "--rounds 1", None),
    Entry("first_picture", "--size 16384 --rounds 3", None,
          (("picture over an empty page", r"\(ratio ([\d.]+)\)"),), "chromium"),
)  # fmt: skip


def is_possible(entry: Entry) -> bool:
    """Whether what it needs is here."""
    if entry.needs.startswith("data/"):
        return (DATA / entry.needs.removeprefix("data/")).exists()
    return not entry.needs or shutil.which(entry.needs) is not None


def run_entry(entry: Entry, folder: Path, words: str, model: Path) -> Run:
    """One script in a process group of its own; what it printed is kept in files."""
    out = folder / entry.name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    places = {"out": out, "data": DATA, "trained": model}
    quoted = {name: shlex.quote(str(place)) for name, place in places.items()}
    quoted["model"] = f"--model {quoted['trained']}" if model.exists() else ""
    arguments = shlex.split(words.format(**quoted))
    command = [sys.executable, str(SCRIPTS / f"{entry.name}.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent), DATA_VARIABLE: str(DATA)}
    load, began = os.getloadavg()[0], time.perf_counter()
    with (out / "stdout.txt").open("w") as stdout, (out / "stderr.txt").open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=stdout, stderr=stderr, env=environment, cwd=SCRIPTS.parent, start_new_session=True
        )
        try:
            code = process.wait(timeout=entry.limit_s)
            outcome = "done" if code == 0 else f"failed ({code})"
        except subprocess.TimeoutExpired:
            outcome = f"ended after {entry.limit_s} s"
        finally:
            end_group(process)
    seconds = time.perf_counter() - began
    ratios, values = find_ratios((out / "stdout.txt").read_text(), out, entry.ratios)
    pictures = sorted(f"{entry.name}/{path.name}" for path in out.glob("*.png"))
    shown = f"python benchmarks/{entry.name}.py {shlex.join(arguments)}".strip()
    return Run(entry.name, shown, outcome, seconds, load, ratios, values, pictures)


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a script with the processes that it started, if they are still there."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def main() -> None:
    """Run, write, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("bench-report"))
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--only", nargs="+", choices=[entry.name for entry in ENTRIES], metavar="SCRIPT")
    parser.add_argument("--compare", type=Path, metavar="REPORT.json", help="another report")
    parser.add_argument("--no-run", action="store_true", help="with --compare: take the report that is there")
    parser.add_argument("--model", type=Path, help="trained before (default: model.safetensors in the output)")
    arguments = parser.parse_args()
    folder = arguments.output.absolute()
    if arguments.no_run:
        if not arguments.compare:
            parser.error("--no-run goes with --compare")
        print(show_comparison(*(json.loads(path.read_text()) for path in (folder / "report.json", arguments.compare))))
        return
    folder.mkdir(parents=True, exist_ok=True)
    model = (arguments.model or folder / ("quick.safetensors" if arguments.quick else "model.safetensors")).absolute()
    machine, began = describe_machine(), time.perf_counter()
    runs: list[Run] = []
    for entry in ENTRIES:
        words = entry.quick if arguments.quick else entry.words
        if words is None or (arguments.only and entry.name not in arguments.only):
            continue
        if is_possible(entry):
            runs.append(run_entry(entry, folder, words, model))
        else:
            runs.append(Run(entry.name, f"python benchmarks/{entry.name}.py", f"{LEFT_OUT}: no {entry.needs}", 0, 0))
        print(f"{entry.name}: {runs[-1].outcome}, {runs[-1].seconds:.0f} s, {len(runs[-1].ratios)} ratios", flush=True)
        write_report(folder, SCRIPTS, machine, runs, quick=arguments.quick, other=arguments.compare)
    print(f"{(time.perf_counter() - began) / 60:.1f} min: {folder / 'README.md'}")
    if arguments.compare:
        print(show_comparison(*(json.loads(path.read_text()) for path in (folder / "report.json", arguments.compare))))
    if failed := [run.name for run in runs if run.outcome != "done" and not run.outcome.startswith(LEFT_OUT)]:
        raise SystemExit(f"not done: {', '.join(failed)}")


if __name__ == "__main__":
    main()
