"""What the pages tell a reader to type works, in the order in which they say it; what is not run is listed here."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import zarr

from segment_slide.cluster.describe import describe_cluster
from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.table import STARTED
from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import ModelConfig, Normalisation, save_checkpoint
from segment_slide.unet.model import UNet, whole_image_logits
from tests.docs.support import (
    PAGES,
    ROOT,
    Block,
    Step,
    blocks_of,
    check_output,
    commands_of,
    is_like,
    run_step,
    steps_of,
)
from tests.flows.support import DATA, write_group, write_ome

README, TUTORIAL, OBJECTS = ROOT / "README.md", ROOT / "docs/tutorial.md", ROOT / "docs/how-to/objects.md"
# run after the README, in the folder that it leaves
AFTER_README = [
    ROOT / "docs" / name
    for name in (
        "index.md",
        "how-to/look.md",
        "how-to/results.md",
        "how-to/convert.md",
        "how-to/resume.md",
        "how-to/verify.md",
        "how-to/train.md",
        "interoperability.md",
        "reference/python-flows.md",
    )
]

# need no file of a reader's, and take seconds
ALONE = [ROOT / "docs/explanation/two-blocks-one-object.md"]

RUN = [README, TUTORIAL, OBJECTS, *AFTER_README, *ALONE]

# page, how the command or block begins, why it cannot run in a test, what runs it (or its like) instead: a path, or
# "nothing", where the reason has to do
DEPLOY = "docs/how-to/deploy.md"
NOTHING, THESE = "nothing", "tests/docs/test_code_blocks.py"
NOT_RUN = [
    ("README.md", "make demo", "installs and trains for minutes", "tests/flows/demo/test_run.py"),
    ("README.md", "make test", "is this very thing", ".ci/run"),
    ("README.md", "segment-slide import-model", "needs a package of the reader", "tests/unet/importing/test_run.py"),
    ("README.md", "napari ", "opens a window", "tests/flows/test_outputs.py"),
    ("README.md", "prefect --no-prompt deploy", "needs a server of Prefect", "tests/flows/deployed/support.py"),
    ("README.md", "prefect deployment run", "needs a server of Prefect", "tests/flows/deployed/test_segment_slide.py"),
    ("docs/index.md", "make demo", "installs and trains for minutes", "tests/flows/demo/test_run.py"),
    ("docs/index.md", "make test", "is this very thing", ".ci/run"),
    ("docs/tutorial.md", "napari ", "opens a window", "tests/flows/test_outputs.py"),
    ("docs/how-to/look.md", ".venv/bin/pip install", "changes the environment, from a package index", NOTHING),
    ("docs/how-to/look.md", "ssh ", "needs another machine", "tests/flows/test_view.py"),
    ("docs/how-to/look.md", "napari ", "opens a window", "tests/flows/test_outputs.py"),
    ("docs/how-to/train.md", "segment-slide train samples.zarr -o nuclei.safetensors --base", "takes an hour", THESE),
    ("docs/how-to/own-network.md", "segment-slide ", "needs a reader's network", "tests/unet/importing/test_run.py"),
    ("docs/how-to/results.md", "import polars", "no dependency of ours; was run once by hand", NOTHING),
    ("docs/how-to/results.md", "import duckdb", "no dependency of ours; was run once by hand", NOTHING),
    ("docs/interoperability.md", "import numpy as np\nimport tensorstore", "no dependency; run once by hand", NOTHING),
    ("docs/explanation/tiles.md", "python benchmarks/seam.py", "draws a figure from a network of minutes", NOTHING),
    ("docs/how-to/cluster.md", "segment-slide cluster check", "needs SLURM", "tests/slurm/test_commands.py"),
    ("docs/how-to/cluster.md", "segment-slide segment", "needs SLURM, or a scheduler", "tests/slurm/test_jobs.py"),
    (DEPLOY, "export PREFECT_SERVER", "is for the server below", "tests/flows/deployed/support.py"),
    (DEPLOY, "prefect server start", "takes a fixed port", "tests/flows/deployed/support.py"),
    (DEPLOY, "export PREFECT_API_URL", "is of the server above", "tests/flows/deployed/support.py"),
    (DEPLOY, "prefect work-pool create", "needs a server of Prefect", "tests/flows/deployed/support.py"),
    (DEPLOY, "prefect --no-prompt deploy", "needs a server of Prefect", "tests/flows/deployed/support.py"),
    (DEPLOY, "prefect worker start", "needs a server of Prefect", "tests/flows/deployed/support.py"),
    (DEPLOY, "prefect deployment run segment-slide/local", "the same", "tests/flows/deployed/test_segment_slide.py"),
    (DEPLOY, "prefect deployment run segment-slide/slurm", "needs SLURM too", "tests/slurm/test_deployed.py"),
    (DEPLOY, "export PREFECT_API_DATABASE", "needs PostgreSQL", NOTHING),
    (DEPLOY, "systemctl --user", "needs systemd", NOTHING),
    (DEPLOY, "git pull && make install", "changes the environment, from a package index", NOTHING),
    (DEPLOY, "sed -i", "changes a site's prefect.yaml", "tests/flows/deployed/test_upgrade.py"),
]  # fmt: skip

# what is made smaller, and why
SMALLER = {
    "-n 1000": ("-n 4", "a thousand samples take minutes"),
    "train samples.zarr -o nuclei.safetensors": (
        "train samples.zarr -o trained.safetensors --steps 2 --base-channels 2",
        "the paper's network takes hours without a GPU; another file, for pages go on with the network that is there",
    ),
}

# blocks of these languages are shown, never typed
SHOWN = {
    "": "drawings, trees and messages",
    "text": "what a block of Python before it prints",
    "nginx": "a part of a server's configuration",
    "r": "R is not among our dependencies",
    "ini": "units of systemd",
    "yaml": "descriptions of a cluster, which are read below",
}


def reason_not_to_run(step: Step) -> tuple[str, ...] | None:
    return next((row for row in NOT_RUN if row[0] == step.block.page and step.text.startswith(row[1])), None)


def smaller(text: str) -> str:
    for said, (instead, _) in SMALLER.items():
        text = text.replace(said, instead)
    return text


def run_page(page: Path, folder: Path) -> None:
    """Run all of a page that can be run, and compare what it prints with what the page shows."""
    for step in steps_of(page):
        if reason_not_to_run(step) is None:
            check_output(step, run_step(Step(step.block, smaller(step.text), step.expected), folder))


# -- what the README's reader has: a slide, a network, annotated images ------------------------------------------------


def write_slide(path: Path) -> None:
    """A real slide where the data are there, else a small tiled TIFF with a pyramid, under the same name."""
    real = DATA / "wsi" / "CMU-1-Small-Region.svs"
    if real.exists():
        shutil.copyfile(real, path)
        return
    pixels = np.random.default_rng(0).integers(0, 255, (1024, 1280, 3), dtype=np.uint8)
    place = {"tile": (256, 256), "resolution": (20000, 20000), "resolutionunit": "CENTIMETER", "photometric": "rgb"}
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, subifds=1, **place)
        file.write(pixels[::2, ::2], subfiletype=1, **place)


def write_network(path: Path, slide: Path) -> None:
    """Random weights, in whose eyes half of this slide is nucleus: a constant map has nothing to measure."""
    pixels = np.moveaxis(tifffile.imread(slide), -1, 0)
    offset, scale = pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2))
    architecture = Architecture(in_channels=3, base_channels=4, depth=2)
    torch.manual_seed(0)
    model = UNet(architecture).eval()
    part = pixels[:, :512, :512].astype(np.float32)
    scores = whole_image_logits(model, (part - offset[:, None, None]) / scale[:, None, None])
    model.classify.bias.data[1] += float(np.median(scores[0] - scores[1]))
    normalisation = Normalisation(offset=tuple(offset.tolist()), scale=tuple(scale.tolist()))
    save_checkpoint(path, model, ModelConfig(architecture, ("background", "nucleus"), normalisation))


def write_annotated(folder: Path) -> None:
    """Images and masks of squares, three of each."""
    generator = np.random.default_rng(1)
    ids = np.zeros((160, 160), np.uint16)
    for number, (top, left) in enumerate(((20, 20), (20, 50), (90, 60)), 1):
        ids[top : top + 30, left : left + 30] = number
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for name in "abc":
        noise = generator.integers(0, 60, (160, 160, 3))
        tifffile.imwrite(folder / f"images/{name}.tif", (noise + 150 * (ids > 0)[..., None]).astype(np.uint8))
        tifffile.imwrite(folder / f"masks/{name}.tif", ids)


@pytest.fixture(scope="module")
def after_readme(tmp_path_factory):
    """A folder in which all of the README was run."""
    folder = tmp_path_factory.mktemp("readme")
    write_slide(folder / "slide.svs")
    write_network(folder / "nuclei.safetensors", folder / "slide.svs")
    write_annotated(folder)
    (folder / "acquisitions").mkdir()
    write_slide(folder / "acquisitions/first.svs")
    (folder / "cluster.yaml").write_text("kind: local\nworkers: 1\n")
    with tifffile.TiffFile(folder / "slide.svs") as file:
        shape = file.pages[0].shape[:2]
    truth = np.zeros(shape, np.uint16)
    truth[100:200, 100:200], truth[300:400, 100:200] = 1, 2
    tifffile.imwrite(folder / "truth.tif", truth)
    run_page(README, folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_readme_runs_on_a_readers_files(after_readme):
    made = {path.name for path in after_readme.iterdir()}
    assert {"slide.ome.zarr", "nuclei.ome.zarr", "set.zarr", "samples.zarr"} <= made
    tables = {path.name for path in (after_readme / "nuclei.ome.zarr/tables").iterdir()}
    assert "segmentation-instances.parquet" in tables


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("page", AFTER_README, ids=lambda page: page.stem)
def test_pages_run_where_the_readme_left_off(page, after_readme):
    run_page(page, after_readme)


def write_masks(folder: Path) -> None:
    """Two objects of another tool: as labels in the slide's store, and in a store of their own."""
    ids = np.zeros(zarr.open_array(folder / "slide.ome.zarr/0", mode="r").shape[-2:], np.uint16)
    ids[10:30, 10:40], ids[50:60, 80:99] = 7, 3000
    write_group(folder / "slide.ome.zarr/labels", {"ome": {"version": "0.5", "labels": ["cells"]}})
    for place in ("slide.ome.zarr/labels/cells", "masks.ome.zarr"):
        write_ome(folder / place, ids, "yx")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_objects_are_counted_and_measured_as_the_page_says(tmp_path):
    write_slide(tmp_path / "slide.svs")
    write_network(tmp_path / "nuclei.safetensors", tmp_path / "slide.svs")
    for command in (
        "ingest slide.svs slide.ome.zarr",
        "segment slide.ome.zarr -m nuclei.safetensors -o nuclei.ome.zarr",
    ):
        run_step(Step(Block("before the page", 1, "console", ""), f"segment-slide {command}"), tmp_path)
    shutil.copytree(tmp_path / "slide.ome.zarr", tmp_path / "other-stain.ome.zarr")
    write_masks(tmp_path)
    run_page(OBJECTS, tmp_path)
    for output in ("nuclei", "measured"):
        assert list(tmp_path.glob(f"{output}.ome.zarr/tables/segmentation-instances.parquet/*.parquet")), output


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_ome_zarr_0_4_that_a_page_writes_is_valid_and_holds_the_same(after_readme):
    from ome_zarr_models import open_ome_zarr

    location = after_readme / "nuclei-04.zarr"
    run_page(ROOT / "docs/how-to/convert.md", after_readme)  # a second time, where all tests run
    group = zarr.open_group(location, mode="r")
    assert type(open_ome_zarr(group)).__module__.startswith("ome_zarr_models.v04")
    ids = group[group.attrs["multiscales"][0]["datasets"][0]["path"]]
    assert ids.metadata.zarr_format == 2
    ours = zarr.open_array(after_readme / "nuclei.ome.zarr/labels/segmentation-instances/0", mode="r")
    np.testing.assert_array_equal(ids[...], ours[...])


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_tutorial_runs_as_written_and_prints_what_it_shows(tmp_path):
    run_page(TUTORIAL, tmp_path)
    assert (tmp_path / "report.html").stat().st_size > 100_000


@pytest.mark.parametrize("page", ALONE, ids=lambda page: page.stem)
def test_pages_that_need_no_files_print_what_they_show(page, tmp_path):
    run_page(page, tmp_path)


# -- quick: no block is forgotten --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_is_run_or_shown_on_purpose(page):
    steps = {step.block for step in steps_of(page)}
    for block in blocks_of(page):
        assert block in steps or block.language in SHOWN, f"{block.where}: {block.language} is neither run nor listed"
        if block.language in SHOWN:
            assert not re.search(r"(?m)^\s*(\$ |segment-slide .* |make \w+$|prefect |pip install)", block.text) or (
                "[OPTIONS]" in block.text
            ), f"{block.where} holds a command; mark it as console"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_with_commands_are_run_or_each_command_is_listed(page):
    if page not in RUN:
        for step in steps_of(page):
            assert reason_not_to_run(step), f"{step.block.where} is neither run nor listed: {step.text}"


def test_what_is_not_run_is_in_the_pages_and_names_a_test_that_is_there():
    used = [reason_not_to_run(step) for page in PAGES for step in steps_of(page)]
    for row in NOT_RUN:
        assert row in used, f"no block begins so any more: {row}"
        assert row[3] == NOTHING or is_test(row[3]), f"expected a file below tests/ or .ci/, or {NOTHING!r}: {row}"
        assert len(row[2]) > 5, row


def is_test(path: str) -> bool:
    place = (ROOT / path).resolve()
    return place.is_file() and any(place.is_relative_to(ROOT / folder) for folder in ("tests", ".ci"))


def test_a_page_and_a_test_that_is_gone_are_no_tests():
    assert is_test(".ci/run")
    assert not is_test("docs/tutorial.md")
    assert not is_test("tests/docs/test_of_nothing.py")


YAML = [block for page in PAGES for block in blocks_of(page) if block.language == "yaml"]


@pytest.mark.parametrize("block", YAML, ids=lambda block: block.where)
def test_descriptions_of_clusters_are_read(block, tmp_path):
    whole, file = block.text if "kind:" in block.text else f"kind: slurm\n{block.text}", tmp_path / "cluster.yaml"
    file.write_text(whole)
    assert describe_cluster(str(file)).kind in STARTED
    file.write_text(f"{whole}\nno_such_key: 1\n")
    with pytest.raises(ClusterError, match="no_such_key"):
        describe_cluster(str(file))


def test_what_is_made_smaller_is_in_a_page():
    texts = [step.text for page in RUN for step in steps_of(page)]
    assert all(any(said in text for text in texts) for said in SMALLER)


def test_most_of_the_readme_is_run():
    steps = steps_of(README)
    assert sum(reason_not_to_run(step) is None for step in steps) >= 0.6 * len(steps)


# -- quick: the reader of blocks ---------------------------------------------------------------------------------------


def test_a_block_is_split_into_commands_and_what_they_print():
    block = Block("page", 1, "console", "$ one \\\n    more\nprinted\n$ two")
    assert [(step.text, step.expected) for step in commands_of(block)] == [
        ("one \\\n    more", ("printed",)),
        ("two", ()),
    ]


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ("F1          IoU > 0.5     0.9901", "F1  IoU > 0.5  0.95", True),
        ("F1          IoU > 0.5     0.9901", "F1  IoU > 0.5  0.80", False),
        ("time        22.0 s", "time        1.5 s  ", True),
        ("Done: 2,669 objects in …", "Done: 2,650 objects in 3.4 s (find 2 s)", True),
        ("Done: 2,669 objects in …", "Done: 26 objects in 3.4 s (find 2 s)", False),
        ("objects 5", "object 5", False),
        ("files of  3 x 1,024", "files of 3 x 1,024", True),
        ("files of  3 x 1,024", "files of 3 x 1,025", False),
        ("Done: 40 blocks in …", "Done: 41 blocks in 3 s", False),
        ("foreground    2,669    2,545   31.30%", "foreground  2,601  2,500  31.0%", True),
        ("background  823,784 px (52.4%)", "background  823,785 px (52.4%)", False),
    ],
)
def test_lines_are_alike_but_for_numbers_of_the_machine(shown, printed, expected):
    assert is_like(shown, printed) is expected


def test_an_output_that_lacks_a_line_or_has_it_elsewhere_is_noticed():
    step = Step(Block("page", 1, "console", ""), "command", ("first", "…", "last"))
    check_output(step, "first\nx\nlast\n")
    for output in ("first\n", "last\nfirst\n"):
        with pytest.raises(AssertionError, match="not printed"):
            check_output(step, output)


def test_a_command_that_fails_is_noticed(tmp_path):
    with pytest.raises(AssertionError, match="ended with 3"):
        run_step(Step(Block("page", 1, "console", ""), "exit 3"), tmp_path)
