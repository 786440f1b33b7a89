"""Commands that are killed at random moments and run again, compared byte for byte with undisturbed runs.

A trial prepares the inputs of one command, starts it and ends its whole process group by SIGKILL at a random moment,
one to eight times in a row; then the command runs to its end. Lost is whatever then differs from the tree that an
undisturbed run leaves, each file that is left over, and each run that does not go on. Run it with::

    python benchmarks/kills.py --folder kills --kills 1000

It can be killed itself and goes on: a line per trial is kept in FOLDER/trials.jsonl. `--trial N` repeats one trial.
Most commands run in a process that is forked from this one, which has imported everything, and without workers: a
kill then costs less than a second; its moment is counted in processor seconds, which a busy machine does not stretch.
`--installed` is the share of trials of the installed command with its scheduler and worker processes. HTML pages may
differ (they hold times); what else may is said in MAY_DIFFER and in `kills_cases.py`.
"""

import atexit
import fcntl
import fnmatch
import hashlib
import importlib
import json
import multiprocessing
import os
import random
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))  # as in workers

from common import Report, make_parser
from kills_cases import CASES, RUN, Case, Words, make_inputs

FORKED, INSTALLED = "forked", "installed"
MOST_KILLS = 8  # in one trial
LIMIT_S = 300.0  # after which a run counts as hanging
LOADED_LATE = (
    "PIL.PngImagePlugin", "matplotlib.backends.backend_agg", "matplotlib.pyplot", "neuroglancer", "pandas",
    "pyarrow.compute", "pyarrow.dataset", "pyarrow.parquet", "pydantic", "safetensors.torch", "scipy.stats",
    "skimage.measure", "skimage.segmentation", "torch._dynamo", "typer.rich_utils",
)  # fmt: skip
COMMAND = Path(sys.executable).with_name("segment-slide")
MAY_DIFFER = {
    "*.html": "pages for people, which hold times",
    "*.segment-slide.lock": "a lock's file; whether a lock is held is the system's knowledge",
}
# A sha256, and base64 in which Arrow repeats metadata: fingerprints up to version 0.2.0 hold the times of files.
HASHES = re.compile(rb"\b[0-9a-f]{64}\b|[A-Za-z0-9+/]{400,}={0,2}")
LEFT_OVER = ("*.partial", "*.segment-slide.lock", "*/work/*", "*.tmp")


# -- processes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ending:
    """How a run ended: its exit code, None if it was killed here.

    `seconds` are the process's own if it was forked, else those of the clock on the wall.
    """

    code: int | None
    seconds: float


def import_all() -> None:
    """Load every module of the package, so that forked processes need not; none of them may start a thread."""
    import segment_slide.flows.commands.main

    root = Path(str(segment_slide.__file__)).parent
    for part in ("unet", "cluster", "pipeline", "flows"):
        for file in sorted((root / part).rglob("*.py")):
            if "deployed" not in file.parts and file.name != "__init__.py":
                importlib.import_module(".".join(("segment_slide", *file.relative_to(root).with_suffix("").parts)))
    for name in LOADED_LATE:
        importlib.import_module(name)
    importlib.import_module("numba").njit(lambda value: value + 1)(1)  # loads its compiler
    threads = [Path(f"/proc/self/task/{thread}/comm").read_text() for thread in os.listdir("/proc/self/task")]
    if len([name for name in threads if not name.startswith("jemalloc")]) > 1:  # jemalloc starts its own anew
        raise SystemExit(f"importing started threads, which a forked process would lack: {threads}")


def work_here() -> None:
    """Let commands run all tasks in their own process."""
    for flow in ("instances", "measure", "segment", "training_data", "weight_maps"):
        module = importlib.import_module(f"segment_slide.flows.{flow}")
        module.open_cluster = lambda *_, **__: nullcontext()  # type: ignore[attr-defined]
    local: Any = importlib.import_module("segment_slide.cluster.kinds.local")
    local.local_client = lambda *_: nullcontext()


def run_forked(folder: Path, words: Sequence[object], kill_after_s: float | None = None) -> Ending:
    """Run a command in a child of this process, in a group of its own, and kill the group after a time."""
    begun_r, begun_w = os.pipe()  # the killing begins when the child has its group
    child = os.fork()
    if child == 0:
        _be_child(folder, words, begun_w)
    os.close(begun_w)
    os.read(begun_r, 1)
    os.close(begun_r)
    clock = ~child << 3 | 2  # its processor seconds, as clock_getcpuclockid(3) names them: a busy neighbour adds none
    began = time.clock_gettime(clock)
    end = time.monotonic() + LIMIT_S
    while not (is_over := _wait(child, 0.002 if kill_after_s is not None else LIMIT_S)):
        if time.monotonic() > end or time.clock_gettime(clock) - began >= (kill_after_s or 0):
            break
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    _wait_for_group(child)
    return _ending(os.waitstatus_to_exitcode(status), is_over, kill_after_s, used.ru_utime + used.ru_stime - began)


def _be_child(folder: Path, words: Sequence[object], begun: int) -> None:
    """What the child does, to its end; it never returns."""
    code: object = 1
    try:
        os.setsid()
        _die_with_parent()
        log = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder)
        os.environ["TMPDIR"] = str(folder / "tmp")
        sys.argv = ["segment-slide", *map(str, words)]
        main: Any = importlib.import_module("segment_slide.flows.commands.main")
        work_here()
        os.write(begun, b"!")
        main.main()
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 -- it must never return into what its parent does
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            atexit._run_exitfuncs()
            sys.stdout.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def _die_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a killed benchmark leaves no writer behind


def run_installed(folder: Path, words: Sequence[object], kill_after_s: float | None = None) -> Ending:
    """The same by the installed command; /dev/shm is a folder of ours where this user may mount."""
    command = [str(COMMAND), *map(str, words)]
    if can_mount():
        script = f"mount --bind {shlex.quote(str(folder / 'shm'))} /dev/shm && exec {shlex.join(command)}"
        command = ["unshare", "--mount", "sh", "-c", script]
    command = ["setpriv", "--pdeathsig", "KILL", *command] if shutil.which("setpriv") else command
    began = time.perf_counter()
    with (folder / "output.txt").open("w") as log:
        environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True)
    is_over = _wait(process.pid, LIMIT_S if kill_after_s is None else kill_after_s)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    _wait_for_group(process.pid)
    return _ending(code, is_over, kill_after_s, time.perf_counter() - began)


def _ending(code: int, is_over: bool, kill_after_s: float | None, seconds: float) -> Ending:
    if not is_over and kill_after_s is None:
        return Ending(-signal.SIGKILL, seconds)  # it hung
    return Ending(None if not is_over and code == -signal.SIGKILL else code, seconds)


def _wait(process: int, seconds: float) -> bool:
    """Whether a process ended in time."""
    descriptor = os.pidfd_open(process)
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def _wait_for_group(group: int) -> None:
    """Wait until no process of a killed group can write any more; what init has not yet collected cannot."""
    while _is_alive(group):
        time.sleep(0.002)


def _is_alive(group: int) -> bool:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


def can_mount() -> bool:
    """Whether commands can be given a /dev/shm of their own."""
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


HOW = {FORKED: run_forked, INSTALLED: run_installed}


# -- trees -------------------------------------------------------------------------------------------------------------


def tree(folder: Path, *, masked: bool = False) -> dict[str, str]:
    """Hash of every file below a folder, `masked`: without the hashes that metadata and tables hold."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): _digest(path, masked) for path in files}


def _digest(path: Path, masked: bool) -> str:
    content = path.read_bytes()
    if masked and path.suffix in (".json", ".parquet"):
        content = HASHES.sub(b"#", content)
    return hashlib.sha256(content).hexdigest()


def is_exempt(name: str, patterns: Sequence[str]) -> bool:
    """Whether a file's bytes may differ.

    >>> is_exempt("a/b.report.html", ["*.html"]), is_exempt("a/zarr.json", ["*.html"])
    (True, False)
    """
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def differing(found: dict[str, str], expected: dict[str, str], exempt: Sequence[str]) -> list[str]:
    """Files that are missing or surplus, and those whose bytes differ and may not.

    >>> differing({"a": "1", "p.html": "2", "more": "3"}, {"a": "0", "p.html": "0", "gone": "0"}, ["*.html"])
    ['differs: a', 'missing: gone', 'surplus: more']
    """
    changed = [
        name for name in found.keys() & expected if found[name] != expected[name] and not is_exempt(name, exempt)
    ]
    return [
        *(f"differs: {name}" for name in sorted(changed)),
        *(f"missing: {name}" for name in sorted(expected.keys() - found)),
        *(f"surplus: {name}" for name in sorted(found.keys() - expected)),
    ]


# -- trials ------------------------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """What a trial found; one line of trials.jsonl."""

    number: int
    case: str
    how: str
    planned_s: list[float]  # after which it was to be killed
    killed: int = 0  # runs that the signal reached
    codes: list[int] = field(default_factory=list)  # of runs that ended by themselves
    differing: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    said: str = ""
    seconds: float = 0.0

    @property
    def is_lost(self) -> bool:
        """Whether anything is not as it would have been."""
        return bool(self.differing or self.left or any(self.codes))


@dataclass(frozen=True)
class Bench:
    """The folder of the trials, and what undisturbed runs leave."""

    folder: Path
    seed: int
    masked: bool = False

    @property
    def trials(self) -> Path:
        return self.folder / "trials.jsonl"

    def read(self) -> list[Trial]:
        """Trials so far; a line that was cut by a kill does not count."""
        lines = self.trials.read_text().splitlines() if self.trials.exists() else []
        found = []
        for line in lines:
            with suppress(json.JSONDecodeError):
                found.append(Trial(**json.loads(line)))
        return found

    def prepare(self, case: Case) -> None:
        """Inputs of a case, and empty folders for what processes leave elsewhere."""
        case.prepare(self.folder)
        for name in ("tmp", "shm"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir(mode=0o700)

    def reference(self, name: str, how: str) -> dict[str, Any]:
        """Tree and seconds of an undisturbed run; made twice, because a tree that is not repeatable proves nothing."""
        path = self.folder / "references" / f"{name.replace(' ', '_')}-{how}.json"
        if path.exists():
            return dict(json.loads(path.read_text()))
        trees, seconds, left = [], 0.0, []
        for _ in range(2):
            self.prepare(CASES[name])
            ending = HOW[how](self.folder, CASES[name].words)
            if ending.code != 0:
                raise SystemExit(f"{name}: the undisturbed run ended with {ending.code}:\n{self.said()}")
            trees.append(tree(self.folder / RUN, masked=self.masked))
            seconds, left = ending.seconds, self.left_elsewhere()
        if bad := differing(*trees, self.exempt(name)):
            raise SystemExit(f"{name}: two undisturbed runs are not equal: {bad}")
        path.parent.mkdir(exist_ok=True)
        found = {"tree": trees[1], "seconds": seconds, "left": left}
        _write(path, json.dumps(found))
        return found

    def exempt(self, name: str) -> list[str]:
        return [*MAY_DIFFER, *CASES[name].may_differ]

    def left_elsewhere(self) -> list[str]:
        """Files in the temporary folder and of shared memory."""
        return [
            f"{name}/{path.relative_to(self.folder / name)}"
            for name in ("tmp", "shm")
            for path in sorted((self.folder / name).rglob("*"))
        ]

    def said(self) -> str:
        return (self.folder / "output.txt").read_text(errors="replace")[-2000:]

    def follow(self, ending: Ending, trial: Trial) -> bool:
        """Note how a run ended; whether it was killed."""
        if ending.code is None:
            trial.killed += 1
            return True
        trial.codes.append(ending.code)
        if ending.code:
            trial.said += self.said()
        return False

    def run(self, number: int, cases: Sequence[str], installed: float) -> Trial:
        """One trial; all that is random in it follows from the seed and its number."""
        chance = random.Random(f"{self.seed}-{number}")
        name = cases[number % len(cases)]
        how = INSTALLED if chance.random() < installed else FORKED
        expected, case, run = self.reference(name, how), CASES[name], HOW[how]
        n_kills, whole_s = chance.randint(1, MOST_KILLS), expected["seconds"]
        planned = [chance.uniform(0, whole_s / 2 if turn else whole_s) for turn in range(n_kills)]  # less is left
        trial, began = Trial(number, name, how, planned), time.perf_counter()
        self.prepare(case)
        for seconds in planned:
            if not self.follow(run(self.folder, case.words, seconds), trial):
                break
        self.follow(run(self.folder, case.words, None), trial)
        found_tree = tree(self.folder / RUN, masked=self.masked)
        trial.differing = differing(found_tree, expected["tree"], self.exempt(name))
        found = [str(path.relative_to(self.folder / RUN)) for path in sorted((self.folder / RUN).rglob("*"))]
        trial.left = [path for path in found if is_exempt(path, LEFT_OVER) and path not in expected["tree"]]
        trial.left += [path for path in self.left_elsewhere() if path not in expected["left"]]
        trial.seconds = time.perf_counter() - began
        return trial


def _write(path: Path, content: str) -> None:
    aside = path.with_suffix(".aside")
    aside.write_text(content)
    aside.replace(path)


def run_to_end(folder: Path) -> Callable[[Sequence[object]], None]:
    """Commands that make the inputs."""

    def run(words: Words) -> None:
        ending = run_forked(folder, words)
        if ending.code != 0:
            raise SystemExit(f"{shlex.join(map(str, words))} ended with {ending.code}: see {folder}/output.txt")

    return run  # type: ignore[return-value]


def make_all_inputs(folder: Path) -> None:
    """Make the inputs once; in a forked process, because drawing them starts threads."""
    if (folder / "inputs-are-made").exists():
        return
    for name in ("inputs", "references", "tmp", "shm"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "tmp").mkdir(mode=0o700)
    maker = multiprocessing.get_context("fork").Process(target=make_inputs, args=(folder, run_to_end(folder)))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise SystemExit(f"the inputs could not be made: see {folder}/output.txt")
    (folder / "inputs-are-made").touch()


# -- what was found ----------------------------------------------------------------------------------------------------


def show(report: Report, trials: Sequence[Trial]) -> None:
    """A row per command, and each loss with its number."""
    rows = []
    for how in (FORKED, INSTALLED):
        for name in CASES:
            some = [trial for trial in trials if (trial.case, trial.how) == (name, how)]
            if some:
                rows.append(
                    [name, how, str(len(some)), str(sum(trial.killed for trial in some)),
                     str(sum(trial.is_lost for trial in some)), str(sum(bool(trial.left) for trial in some))]
                )  # fmt: skip
    report.table(
        "Killed by SIGKILL and run again", ["command", "process", "trials", "kills", "lost", "of them left over"], rows
    )
    for trial in trials:
        if trial.is_lost:
            report.say(f"LOST {json.dumps(asdict(trial))}")
    killed, lost = sum(trial.killed for trial in trials), sum(trial.is_lost for trial in trials)
    report.values |= {"kills": killed, "trials": len(trials), "lost": lost}
    report.say(f"{killed} kills in {len(trials)} trials, {lost} lost")


def main() -> None:
    """Go on until so many kills have been made, and show what was found."""
    parser = make_parser(__doc__)
    parser.add_argument("--folder", type=Path, default=Path("kills"), help="inputs, references and trials, kept")
    parser.add_argument("--kills", type=int, default=1000, help="to be reached, earlier runs in the folder included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--installed", type=float, default=0.05, help="share of trials of the installed command")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="begin no trial after so many seconds")
    parser.add_argument("--trial", type=int, help="repeat this one and show it")
    parser.add_argument("--mask-hashes", action="store_true", help="for versions whose fingerprints hold file times")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"another run works in {folder}") from None
        import_all()
        make_all_inputs(folder)
        began = time.monotonic()
        bench, report = Bench(folder, arguments.seed, arguments.mask_hashes), Report(arguments)
        if arguments.trial is not None:
            print(json.dumps(asdict(bench.run(arguments.trial, arguments.cases, arguments.installed)), indent=1))
            return
        trials = bench.read()
        while sum(t.killed for t in trials) < arguments.kills and time.monotonic() - began < arguments.limit_s:
            number = max((trial.number for trial in trials), default=-1) + 1
            trials.append(bench.run(number, arguments.cases, arguments.installed))
            with bench.trials.open("a") as file:
                file.write(json.dumps(asdict(trials[-1])) + "\n")
        show(report, trials)
        report.save()
        if any(trial.is_lost for trial in trials):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
