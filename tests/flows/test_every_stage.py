"""Every stage that runs tasks, with a task that fails once, fails always, or ends its worker: one policy for all.

The table of stages is compared with the source: a new call of `run_all` has to get a row.
"""

import ast
import functools
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from distributed import Client
from scipy import ndimage

import segment_slide.pipeline.blocks.canvas
import segment_slide.pipeline.blocks.tasks
import segment_slide.pipeline.ingest.run
import segment_slide.pipeline.manifest.compare
import segment_slide.pipeline.segmentation.run
import segment_slide.pipeline.training.weights_run
from segment_slide.cluster.kinds.local import local_client, plan_local
from segment_slide.pipeline.errors import IncompleteError
from segment_slide.pipeline.statistics import measure as statistics
from segment_slide.pipeline.statistics.apply import measure_levels, measured_scaling
from segment_slide.pipeline.statistics.levels import describe_intensities
from segment_slide.pipeline.synthetic.slide import SyntheticSlide
from segment_slide.pipeline.synthetic.stored import store_slide
from segment_slide.unet.checkpoint import Normalisation
from tests.flows.disturbed import ALWAYS, DIES, NEVER, ONCE, REASON, Disturbed, count_done
from tests.flows.support import Outcome, noise, run_here, tree, write_array, write_model, write_segmentation
from tests.pipeline.statistics.support import source_of

ROOT = Path(__file__).parents[2]
PIPELINE = ROOT / "pipeline"
SHAPE = (64, 96)  # 2 x 3 blocks of 32, 2 files in level 1, 1 in level 2

Scenario = Callable[["Inputs", Path, "Client | None"], Outcome]


# -- scenarios: commands that run some stages each, into FOLDER/out ---------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """What the scenarios start from; nothing changes it."""

    folder: Path

    def copy(self, name: str, folder: Path) -> Path:
        """Take something along as FOLDER/out, where it will be changed, unless an earlier run has."""
        out = folder / "out"
        if not out.exists():
            shutil.copytree(self.folder / name, out)
        return out

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


def segment(inputs: Inputs, folder: Path, _: "Client | None") -> Outcome:
    """Measured, background left out, probabilities stored."""
    more = ("--block", 32, "--probabilities", "uint8", "--skip-background")
    return _segment(inputs / "slide.zarr", inputs / "measuring.safetensors", folder, *more)


def segment_reals(inputs: Inputs, folder: Path, _: "Client | None") -> Outcome:
    """Looked through for NaN, normalised by constants."""
    return _segment(inputs / "reals.zarr", inputs / "constants.safetensors", folder, "--block", 32)


def segment_wide(inputs: Inputs, folder: Path, _: "Client | None") -> Outcome:
    """Wide enough for a pyramid: 10 blocks, 5 files in its coarser level, of labels and of probabilities each."""
    more = ("--block", 64, "--probabilities", "uint8")
    return _segment(inputs / "wide.zarr", inputs / "constants.safetensors", folder, *more)


def _segment(slide: Path, model: Path, folder: Path, *more: object) -> Outcome:
    fixed = ("--axes", "yx", "--precision", "float32")
    return run_here("segment", slide, "-m", model, "-o", folder / "out", *fixed, *more)


def instances(inputs: Inputs, folder: Path, _: "Client | None") -> Outcome:
    """Everything that numbering can do."""
    more = ("--fill-holes", 50, "--split", 2, "--regrow", "--block", 32)
    return run_here("instances", inputs / "cells.ome.zarr", "-o", folder / "out", *more)


def instances_wide(inputs: Inputs, folder: Path, _: "Client | None") -> Outcome:
    """Wide enough for a pyramid."""
    return run_here("instances", inputs / "wide.ome.zarr", "-o", folder / "out", "--block", 64)


def measure(inputs: Inputs, folder: Path, _: "Client | None") -> Outcome:
    """A table of objects."""
    return run_here("measure", inputs.copy("numbered.ome.zarr", folder), "--no-image")


def measure_on(inputs: Inputs, folder: Path, _: "Client | None") -> Outcome:
    """The same, begun by a run in which a block failed."""
    return run_here("measure", inputs.copy("half.ome.zarr", folder), "--no-image")


def measure_again(inputs: Inputs, folder: Path, _: "Client | None") -> Outcome:
    """The same, with the table there and its summary lost."""
    return run_here("measure", inputs.copy("measured.ome.zarr", folder), "--no-image")


def weight_maps(inputs: Inputs, folder: Path, _: "Client | None") -> Outcome:
    """Of binary masks, whose objects are found first."""
    images = (inputs / "images", "--labels", inputs / "masks", "--kind", "binary", "--sigma", 2)
    return run_here("weight-maps", *images, "-o", folder / "out", "--block", 32)


def training_data(inputs: Inputs, folder: Path, _: "Client | None") -> Outcome:
    """Samples of the set that `weight_maps` makes."""
    small = ("--n", 40, "--tile", 16, "--depth", 1)
    return run_here("training-data", inputs / "set", "-o", folder / "out", *small)


def evaluate(kind: str, inputs: Inputs, folder: Path, _: "Client | None", *options: str) -> Outcome:
    """Scores, as a file."""
    predicted = inputs / ("probability.zarr" if kind == "membranes" else "planes.zarr")
    (folder / "out").mkdir(exist_ok=True)
    fixed = ("--axes", "tyx", "--truth-axes", "tyx", "--csv", folder / "out/scores.csv")
    return run_here("evaluate", predicted, inputs / "planes.zarr", "--kind", kind, *fixed, *options)


def evaluate_masks(inputs: Inputs, folder: Path, client: "Client | None") -> Outcome:
    """Scores of classes whose ignored value the user says."""
    return evaluate("classes", inputs, folder, client, "--ignore", "255")


def draw(_: Inputs, folder: Path, client: "Client | None") -> Outcome:
    """A synthetic slide; no command draws one alone."""
    try:
        store_slide(SyntheticSlide((1100, 64), seed=1), str(folder / "out"), client=client)
    except IncompleteError as error:
        return Outcome(3, "", str(error))
    return Outcome(0, "", "")


def ingest(inputs: Inputs, folder: Path, _: "Client | None") -> Outcome:
    """A TIFF of three planes to OME-Zarr."""
    return run_here("ingest", inputs / "stack.tif", folder / "out", "--axes", "zyx")


# -- the table ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """One kind of task.

    Parameters
    ----------
    file, task : str
        Whose `run_all` it is given to, and its name.
    scenario : callable
        A command that runs it.
    named : str
        Pattern of how messages name it.
    lost : int
        Tasks that cannot be done if the first one fails always: itself, and what is made of it.
    leaves_no : str, optional
        A reduction: what must not be there without all tasks, within FOLDER.
    in_windows : bool
        Whether the first try on a cluster is a chunk of a window.
    runs_here : bool
        Whether the scenario has no workers for it.
    is_quick : bool
        Whether its worker is ended in the quick tier too.
    """

    file: str
    task: str
    scenario: Scenario
    named: str
    lost: int = 1
    leaves_no: str = ""
    in_windows: bool = False
    runs_here: bool = False
    is_quick: bool = False


BLOCK, SET_BLOCK, ROW = r"block \(\d, \d\)", r"t\d, block \(\d, \d\)", r"row \(\d,\)"
STAGES = {
    "statistics": Stage(
        "statistics/measure.py", "_count_box", segment, r"region \(y 0:32, x 0:32\)", leaves_no="out", is_quick=True
    ),
    "sample": Stage("statistics/sample.py", "_read_box", segment, "sample 0", leaves_no="out"),
    "finite": Stage("statistics/measure.py", "_look_at_box", segment_reals, r"region \(y 0:32, x", leaves_no="out"),
    "background": Stage("segmentation/run.py", "run_background_block", segment, BLOCK),
    "segment": Stage(
        "segmentation/run.py",
        "run_block_alone",
        segment,
        BLOCK,
        in_windows=True,
        is_quick=True,
    ),
    "pyramid": Stage(
        "storage/pyramid.py",
        "run_level_shard",
        segment_wide,
        r"pyramid: [\s\S]*file 0/0 of labels/segmentation/1",
        is_quick=True,
    ),
    "pyramid of ids": Stage(
        "storage/pyramid.py", "run_level_shard", instances_wide, "file 0/0 of labels/segmentation-instances/1"
    ),
    "find holes": Stage("objects/run.py", "find_holes", instances, BLOCK),
    "fill holes": Stage("objects/run.py", "fill_holes", instances, BLOCK),
    "find": Stage("objects/run.py", "find_objects", instances, BLOCK),
    "join": Stage("objects/run.py", "join_row", instances, ROW, lost=3),  # of holes, so that none of objects begin
    "number": Stage("objects/run.py", "rank_objects", instances, ROW),
    "write": Stage("objects/run.py", "write_objects", instances, BLOCK),
    "regrow": Stage("objects/run.py", "regrow_objects", instances, BLOCK),
    "measure rows": Stage("measurement/run.py", "measure_place", measure, BLOCK),
    "recall rows": Stage("measurement/run.py", "recall_block", measure_on, BLOCK),
    "table": Stage("measurement/run.py", "run_part", measure, "part 0 of the table"),
    "recall table": Stage("measurement/run.py", "recall_part", measure_again, "part 0 of the table", runs_here=True),
    "objects of masks": Stage("training/weights_inputs.py", "_write_objects", weight_maps, "t0"),
    "count": Stage("training/class_counts.py", "_count", weight_maps, SET_BLOCK, leaves_no="out/*/weights"),
    "weights": Stage(
        "training/weights_run.py",
        "_run_item",
        weight_maps,
        SET_BLOCK,
        in_windows=True,
    ),
    "samples": Stage("training/samples_run.py", "write_shard", training_data, "training file 0"),
    "scores of values": Stage(
        "scoring/run.py",
        "_count_values",
        functools.partial(evaluate, "classes"),
        r"frame 0, pixels \(0:64, 0:96\)",
        leaves_no="out/scores.csv",
    ),
    "scores of classes": Stage(
        "scoring/run.py",
        "_count_classes",
        evaluate_masks,
        r"frame 0, pixels \(0:64, 0:96\)",
        leaves_no="out/scores.csv",
    ),
    "scores of instances": Stage(
        "scoring/run.py",
        "_count_objects",
        functools.partial(evaluate, "instances"),
        "frame 0, pixels",
        leaves_no="out/scores.csv",
    ),
    "scores of membranes": Stage(
        "scoring/run.py",
        "_score_plane",
        functools.partial(evaluate, "membranes"),
        "frame 0, pixels",
        leaves_no="out/scores.csv",
    ),
    # of an earlier run's files; those of this run are not read then
    "manifest": Stage("manifest/compare.py", "read_one", measure_again, r"file \S+", lost=6, runs_here=True),
    "drawing": Stage("synthetic/stored.py", "_store_shard", draw, r"file \(0, 0\)"),
    "ingest": Stage("ingest/run.py", "_write_shard", ingest, "file 0/0/0", runs_here=True),
    "ingest's levels": Stage("ingest/run.py", "run_level_shard", ingest, "file 0/0/0 of 1", runs_here=True),
}


class Source:
    """A file's functions, and which of them it gives to `run_all`, its own helpers and `functools.partial` between."""

    def __init__(self, path: Path) -> None:
        self.path = path
        nodes = ast.walk(ast.parse(path.read_text()))
        self.functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]

    def tasks(self, name: str = "run_all", position: int = 1) -> set[str]:
        """Names of the functions that calls of a function are given at a position."""
        return {
            task
            for inside in self.functions
            for node in ast.walk(inside)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == name
            for task in self.follow(node.args[position], inside)
        }

    def follow(self, given: ast.expr, inside: ast.FunctionDef) -> set[str]:
        """Names of the functions that an expression may be."""
        if isinstance(given, ast.Call) and ast.unparse(given.func) == "functools.partial":
            return self.follow(given.args[0], inside)
        assert isinstance(given, ast.Name), f"{self.path}: cannot see which task {ast.unparse(given)} is"
        parameters = [argument.arg for argument in inside.args.args]
        if given.id in parameters:
            return self.tasks(inside.name, parameters.index(given.id))
        values = [value for target, value in assignments(inside) if target == given.id]
        return {task for value in values for task in self.follow(value, inside)} if values else {given.id}


def assignments(function: ast.FunctionDef) -> Iterator[tuple[str, ast.expr]]:
    """Names that a function assigns, and what to; ``a, b = c, d`` one by one."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                yield from zip(map(ast.unparse, target.elts), value.elts, strict=True)
            else:
                yield ast.unparse(target), value


def test_the_table_holds_every_task_of_the_source() -> None:
    found = {
        (str(path.relative_to(PIPELINE)), task)
        for path in PIPELINE.rglob("*.py")
        if path.parent.name != "blocks"
        for task in Source(path).tasks()
    }
    assert found == {(stage.file, stage.task) for stage in STAGES.values()}


def test_nothing_runs_tasks_but_by_the_one_function() -> None:
    """Attempts alone, without the policy, are for `pipeline.blocks`."""
    for part in ("pipeline", "flows"):
        for path in (ROOT / part).rglob("*.py"):
            if path.parent.name != "blocks":
                others = re.findall(r"\b(?:run_tasks|as_completed|client\.(?:submit|map|compute))\b", path.read_text())
                assert not others, path


# -- running them ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Inputs:
    """Images, labels and networks; segmentations numbered, half measured and measured."""
    folder = tmp_path_factory.mktemp("inputs")
    pixels = noise(*SHAPE)
    pixels[:, :40] = 240  # glass
    write_array(folder / "slide.zarr", pixels, chunk=32)
    write_array(folder / "wide.zarr", noise(40, 600))
    write_array(folder / "reals.zarr", noise(*SHAPE).astype(np.float32), chunk=32)
    mean_std = Normalisation("mean-std")
    measured, levels = measure_levels(source_of(folder / "known", noise(*SHAPE)))
    known = describe_intensities([levels], [measured_scaling(measured, mean_std)])
    write_model(folder / "measuring.safetensors", normalisation=mean_std, intensities=known)
    write_model(folder / "constants.safetensors")
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((3, *SHAPE)), (0, 2, 2))
    planes = (smooth > 0.5).astype(np.uint8)
    write_array(folder / "planes.zarr", planes)
    write_array(folder / "probability.zarr", smooth.astype(np.float32))
    write_segmentation(folder / "cells.ome.zarr", planes[0], files=(32, 32), scale=(1.0, 1.0))
    wide = (ndimage.gaussian_filter(noise(40, 600).astype(float), 2) > 127).astype(np.uint8)
    write_segmentation(folder / "wide.ome.zarr", wide, scale=(1.0, 1.0))
    for name, values in (("images", noise(3, *SHAPE)), ("masks", planes)):
        (folder / name).mkdir()
        for number, plane in enumerate(values):
            tifffile.imwrite(folder / name / f"t{number}.tif", plane)
    tifffile.imwrite(folder / "stack.tif", noise(3, 600, 80), photometric="minisblack")
    found = Inputs(folder)
    with pytest.MonkeyPatch.context() as patch:
        disturb(patch, None, STAGES["measure rows"], NEVER, folder)
        shutil.copytree(folder / "cells.ome.zarr", folder / "numbered.ome.zarr")
        assert run_here("instances", folder / "numbered.ome.zarr", "--in-place", "--block", 32).exit_code == 0
        shutil.copytree(folder / "numbered.ome.zarr", folder / "measured.ome.zarr")
        assert run_here("measure", folder / "measured.ome.zarr", "--no-image").exit_code == 0
        assert weight_maps(found, folder, None).exit_code == 0
        (folder / "out").rename(folder / "set")
    with pytest.MonkeyPatch.context() as patch:
        disturb(patch, None, STAGES["measure rows"], ALWAYS, folder)
        shutil.copytree(folder / "numbered.ome.zarr", folder / "half.ome.zarr")
        assert run_here("measure", folder / "half.ome.zarr", "--no-image").exit_code == 3
    return found


def disturb(patch: pytest.MonkeyPatch, client: Client | None, stage: Stage, how: str, folder: Path) -> None:
    """Let all commands work on a client, or here, and one kind of task be disturbed wherever it is run."""
    for flow in ("instances", "measure", "segment", "training_data", "weight_maps"):
        patch.setattr(f"segment_slide.flows.{flow}.open_cluster", lambda *_, **__: nullcontext(client))
    patch.setattr("segment_slide.cluster.kinds.local.local_client", lambda *_: nullcontext(client))
    patch.setattr(statistics, "_BOX_PX", {2: 32, 3: 32})

    def disturbed(run: Callable[..., Any], position: int) -> Callable[..., Any]:
        def run_disturbed(*arguments: Any, **more: Any) -> Any:
            function = arguments[position]
            task = getattr(function, "func", function).__name__
            if task == stage.task or how == NEVER:
                function = Disturbed(function, how, folder, task)
            return run(*arguments[:position], function, *arguments[position + 1 :], **more)

        return run_disturbed

    tasks, threads = segment_slide.pipeline.blocks.tasks, segment_slide.pipeline.ingest.run
    patch.setattr(tasks, "run_tasks", disturbed(tasks.run_tasks, 1))
    for room in (threads, segment_slide.pipeline.manifest.compare):
        patch.setattr(room, "try_in_threads", disturbed(room.try_in_threads, 0))
    if stage.in_windows and client:
        canvas = segment_slide.pipeline.blocks.canvas
        patch.setattr(canvas, "run_chunk", Disturbed(canvas.run_chunk, how, folder, "run_chunk"))


def run(
    stage: Stage, how: str, inputs: Inputs, folder: Path, client: Client | None = None
) -> tuple[Outcome, Counter[str]]:
    """How the scenario ends, and how many calls of the task ended well (undisturbed: of all tasks)."""
    folder.mkdir(exist_ok=True)
    notes = folder / how
    notes.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        disturb(patch, client, stage, how, notes)
        return stage.scenario(inputs, folder, client), count_done(notes)


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory) -> Callable[[Stage], tuple[dict[str, str], int]]:
    """Of a stage: the bytes that its scenario leaves, and how many tasks it has."""
    found: dict[Scenario, tuple[dict[str, str], Counter[str]]] = {}

    def find(stage: Stage) -> tuple[dict[str, str], int]:
        if stage.scenario not in found:
            folder = tmp_path_factory.mktemp("undisturbed")
            outcome, n_tasks = run(stage, NEVER, inputs, folder)
            assert outcome.exit_code == 0, outcome
            found[stage.scenario] = tree(folder / "out"), n_tasks
        expected, n_tasks = found[stage.scenario]
        return expected, n_tasks[stage.task]

    return find


@pytest.mark.slow  # one that always fails, next, goes on to equal bytes as well
@pytest.mark.parametrize("name", STAGES)
def test_a_task_that_fails_once_leaves_no_trace(name, inputs, undisturbed, tmp_path) -> None:
    stage, (expected, n_tasks) = STAGES[name], undisturbed(STAGES[name])
    outcome, n_done = run(stage, ONCE, inputs, tmp_path)
    assert outcome.exit_code == 0, outcome
    assert (tmp_path / ONCE / "chosen").exists(), "nothing was disturbed"
    assert n_done[stage.task] == n_tasks
    assert tree(tmp_path / "out") == expected


@pytest.mark.parametrize("name", STAGES)
def test_a_task_that_always_fails_is_named_all_others_are_done_and_the_same_command_goes_on(
    name, inputs, undisturbed, tmp_path
) -> None:
    stage, (expected, n_tasks) = STAGES[name], undisturbed(STAGES[name])
    outcome, n_done = run(stage, ALWAYS, inputs, tmp_path)
    assert outcome.exit_code == 3, outcome
    assert re.search(rf"{stage.named}.*{REASON}", outcome.err), outcome.err
    assert outcome.err.count(REASON) == 1
    assert "Traceback" not in outcome.err
    assert n_done[stage.task] == n_tasks - stage.lost
    assert not stage.leaves_no or not list(tmp_path.glob(stage.leaves_no))
    outcome, _ = run(stage, NEVER, inputs, tmp_path)
    assert outcome.exit_code == 0, outcome
    assert tree(tmp_path / "out") == expected


@pytest.fixture(scope="module")
def processes() -> Iterator[Client]:
    """A worker of our own, which is started again when it ends."""
    with local_client(plan_local(1)) as client:
        yield client


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if stage.is_quick else pytest.mark.slow)
        for name, stage in STAGES.items()
        if not stage.runs_here
    ],
)
def test_a_worker_that_dies_leaves_no_trace(name, inputs, undisturbed, processes, tmp_path) -> None:
    expected, _ = undisturbed(STAGES[name])
    outcome, _ = run(STAGES[name], DIES, inputs, tmp_path, processes)
    assert outcome.exit_code == 0, outcome
    assert (tmp_path / DIES / "chosen").exists(), "nobody died"
    assert tree(tmp_path / "out") == expected
