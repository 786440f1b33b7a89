"""The flow from annotated images to a training set, whole: real data, real workers, a real kill."""

import contextlib
import contextvars
import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from rich.console import Console

import segment_slide.flows.training_data
import segment_slide.flows.weight_maps
from segment_slide.cluster.errors import ClusterError
from segment_slide.flows.requests import Workers
from segment_slide.flows.show.training import show_weight_maps, weight_maps_rows
from segment_slide.flows.show.wording import find_options
from segment_slide.flows.training_data import make_training_data
from segment_slide.flows.training_requests import TrainingDataRequest, WeightMapsRequest
from segment_slide.flows.weight_maps import make_weight_maps, plan_request
from segment_slide.pipeline.blocks.progress import QuietStages
from segment_slide.pipeline.errors import IncompleteError, InputError, OutputError, OutputMismatchError, PlanError
from segment_slide.pipeline.training import weights_inputs
from segment_slide.pipeline.training.options import AnnotationInput, WeightOptions
from segment_slide.pipeline.training.training_set import check_complete, read_training_set
from segment_slide.unet.weight_map import count_class_weights, cut_ridges, weight_map
from segment_slide.unet.weight_settings import WeightSettings
from tests.flows.support import DATA, brake, raw_tree, shards, tree, wait_until, write_array
from tests.unet.test_weight_map import draw_cells

NARROW = WeightSettings(sigma_px=2.0)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(monkeypatch):
    """Run blocks in this process."""
    monkeypatch.setattr(segment_slide.flows.weight_maps, "open_cluster", lambda *_, **__: contextlib.nullcontext())


class Told(QuietStages):
    """Remembers stages: name, steps in all, steps done before, steps made."""

    def __init__(self):
        self.stages = []

    @contextlib.contextmanager
    def stage(self, name, total, done=0, unit="blocks"):
        entry = [name, total, done, 0]
        if name not in ("check", "seal"):  # what the manifest reads: see tests/pipeline/manifest
            self.stages.append(entry)

        def advance(n_pixels):
            entry[3] += 1

        yield advance


def request_for(folder: Path, labels: np.ndarray, output="set.zarr", **choices) -> WeightMapsRequest:
    if not (folder / "labels").exists():
        write_array(folder / "image", np.zeros(labels.shape, np.uint8), chunk=32)
        write_array(folder / "labels", labels, chunk=32)
    annotation = AnnotationInput((str(folder / "image"),), (str(folder / "labels"),), axes="yx")
    options = WeightOptions(**{"settings": NARROW, "block": 16} | choices)
    return WeightMapsRequest(str(folder / output), annotation, options, workers=Workers(1))


def data(*names: str) -> str:
    path = DATA.joinpath(*names)
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return str(path)


def read(report, number=0):
    image = report.training_set.images[number]
    return [np.asarray(report.training_set.array(image, name)[...]) for name in ("classes", "weights")]


def test_the_flow_tells_its_stages_and_leaves_out_what_is_done(tmp_path, workers, monkeypatch):
    monkeypatch.setattr(segment_slide.flows.weight_maps, "open_cluster", workers)
    labels, told = draw_cells(0), Told()
    report = make_weight_maps(request_for(tmp_path, labels), told)
    n = report.n_blocks
    assert n == 5 * 6
    assert told.stages == [["count", n, 0, n], ["weights", n, 0, n]]
    assert (report.n_done_before, report.n_pixels) == (0, labels.size)
    np.testing.assert_array_equal(read(report)[1], weight_map(labels, NARROW).weights)
    told = Told()
    report = make_weight_maps(request_for(tmp_path, labels), told)
    assert told.stages == [["weights", n, n, 0]]
    assert (report.n_done_before, report.n_pixels) == (n, 0)


def test_nothing_is_left_but_the_set(tmp_path, here):
    make_weight_maps(request_for(tmp_path, draw_cells(0), kind="binary"))
    assert sorted(path.name for path in (tmp_path / "set.zarr").iterdir()) == [
        "000-image",
        "_manifest",
        "objects",
        "zarr.json",
    ]
    check_complete(read_training_set(tmp_path / "set.zarr"))


@pytest.mark.parametrize(
    ("choices", "error"),
    [
        ({"block": 3}, PlanError),
        ({"kind": "auto"}, InputError),
        ({"class_names": ("one",)}, InputError),
    ],
    ids=["block", "kind", "names"],
)
def test_what_cannot_work_is_refused_before_anything_is_created(tmp_path, choices, error):
    with pytest.raises(error):
        make_weight_maps(request_for(tmp_path, draw_cells(0), **choices))
    assert not (tmp_path / "set.zarr").exists()


def write_files(folder: Path, labels: np.ndarray) -> AnnotationInput:
    for name, values in (("images", np.zeros(labels.shape, np.uint8)), ("masks", labels)):
        (folder / name).mkdir(exist_ok=True)
        for number in range(3):
            tifffile.imwrite(folder / name / f"t{number}.tif", values)
    return AnnotationInput((str(folder / "images"),), (str(folder / "masks"),))


@pytest.mark.parametrize(
    ("labels", "choices", "message"),
    [
        (np.full((40, 40), -1, np.int16), {}, "the value -1"),
        (np.full((40, 40), 300, np.int16), {"kind": "classes"}, "the value 300"),
        (np.zeros((40, 40), np.uint8), {"kind": "binary"}, "nothing is foreground"),
        (np.ones((40, 40), np.uint8), {}, "everything annotated has class 1"),
    ],
    ids=["negative", "no classes", "no foreground", "no background"],
)
def test_a_set_that_is_refused_for_its_labels_is_taken_back(tmp_path, here, labels, choices, message):
    annotation, output = write_files(tmp_path, labels), tmp_path / "new" / "set.zarr"
    before = tree(tmp_path)
    with pytest.raises(InputError, match=message):
        make_weight_maps(WeightMapsRequest(str(output), annotation, WeightOptions(**choices), workers=Workers(1)))
    assert tree(tmp_path) == before
    assert not output.parent.exists()


def test_a_refused_run_leaves_what_was_there_before(tmp_path, here):
    annotation, output = write_files(tmp_path, draw_cells(0).astype(np.uint8)), tmp_path / "set.zarr"
    plan, _ = plan_request(WeightMapsRequest(str(output), annotation, workers=Workers(1)))
    weights_inputs.begin(plan)
    names = WeightOptions(kind="classes", class_names=("glass", "cell"))
    with pytest.raises(InputError, match="hold class"):
        make_weight_maps(WeightMapsRequest(str(output), annotation, names, workers=Workers(1)))
    assert (output / "sources").exists()
    complete = make_weight_maps(WeightMapsRequest(str(output), annotation, workers=Workers(1)))
    before = tree(output)
    with pytest.raises(OutputMismatchError):
        make_weight_maps(WeightMapsRequest(str(output), annotation, names, workers=Workers(1)))
    assert tree(output) == before
    check_complete(complete.training_set)


# -- a set and its copy ------------------------------------------------------------------------------------------


def test_two_runs_into_two_places_give_equal_bytes(tmp_path, here):
    annotation = write_files(tmp_path, draw_cells(0).astype(np.uint8))
    for name in ("one/set.zarr", "two/other.zarr"):
        make_weight_maps(WeightMapsRequest(str(tmp_path / name), annotation, workers=Workers(1)))
    assert tree(tmp_path / "one/set.zarr") == tree(tmp_path / "two/other.zarr")


def test_a_copy_of_a_set_serves_and_goes_on_with_samples_begun_from_the_original(tmp_path, here, monkeypatch):
    monkeypatch.setattr(segment_slide.flows.training_data, "open_cluster", lambda *_, **__: contextlib.nullcontext())
    annotation = write_files(tmp_path, draw_cells(0).astype(np.uint8))
    make_weight_maps(WeightMapsRequest(str(tmp_path / "set.zarr"), annotation, workers=Workers(1)))

    def draw(training_set, output):
        request = TrainingDataRequest(
            str(tmp_path / training_set), str(tmp_path / output), 40, (16,), 1, workers=Workers(1)
        )
        return make_training_data(request)

    draw("set.zarr", "samples.zarr")
    before = raw_tree(tmp_path / "samples.zarr")
    shutil.rmtree(tmp_path / "images")
    shutil.copytree(tmp_path / "set.zarr", tmp_path / "copy.zarr", copy_function=shutil.copy)  # new times
    shutil.rmtree(tmp_path / "set.zarr")
    shutil.rmtree(tmp_path / "samples.zarr/training/images/c/0")
    report = draw("copy.zarr", "samples.zarr")
    assert report.n_files_before == report.n_files - 1
    after = raw_tree(tmp_path / "samples.zarr")
    differ = {name for name in before | after if before.get(name) != after.get(name)}
    assert differ <= {"zarr.json", "_manifest/files.json"}, "but for the place of the set"


def test_a_note_on_masks_is_told_by_every_run(tmp_path, here):
    labels = np.where(draw_cells(0) > 0, np.uint8(255), np.uint8(0))
    notes = [make_weight_maps(request_for(tmp_path, labels)).notes for _ in range(2)]
    assert len(notes[0]) == 1
    assert notes[0] == notes[1]


def test_pairs_are_shown_and_drawn_on_the_contact_sheet(tmp_path, here, monkeypatch):
    monkeypatch.setattr(segment_slide.flows.training_data, "open_cluster", lambda *_, **__: contextlib.nullcontext())
    drawn = []
    monkeypatch.setattr(segment_slide.flows.training_data, "write_contact_sheet", lambda *given: drawn.extend(given[2]))
    labels = draw_cells(0).astype(np.uint8)
    for folder, names in (("i", ("mouse1_week2", "mouse2_week1")), ("m", ("mouse1_labels", "mouse2_labels"))):
        (tmp_path / folder).mkdir()
        for name in names:
            tifffile.imwrite(tmp_path / folder / f"{name}.tif", labels)
    named = (str(tmp_path / "i"),), (str(tmp_path / "m"),)
    with pytest.raises(InputError, match="`label_suffix`"):
        make_weight_maps(WeightMapsRequest(str(tmp_path / "set.zarr"), AnnotationInput(*named)))
    annotation = AnnotationInput(*named, label_suffix="_labels")
    report = make_weight_maps(WeightMapsRequest(str(tmp_path / "set.zarr"), annotation))
    expected = "mouse1_week2.tif with mouse1_labels.tif, mouse2_week1.tif with mouse2_labels.tif"
    assert weight_maps_rows(report)["pairs"] == expected
    request = TrainingDataRequest(
        str(tmp_path / "set.zarr"), str(tmp_path / "samples.zarr"), n=2, tile_px=(36,), depth=1, validation_share=0
    )
    make_training_data(request)
    assert len(drawn) == 2
    assert {caption.split("\n")[1] for caption in drawn} <= set(expected.split(", "))


def test_masks_that_are_saved_as_colours_give_the_set_of_grey_ones(tmp_path, here):
    grey = np.where(draw_cells(0) > 0, np.uint8(255), np.uint8(0))
    found = []
    for name, values in (("grey", grey), ("colours", np.repeat(grey[..., None], 3, axis=-1))):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "image.tif", grey)
        (tmp_path / name / "mask.png").write_bytes(imagecodecs.png_encode(values))
        annotation = AnnotationInput((str(tmp_path / name / "image.tif"),), (str(tmp_path / name / "mask.png"),))
        request = WeightMapsRequest(str(tmp_path / name / "set.zarr"), annotation, WeightOptions(kind="binary"))
        found.append(read(make_weight_maps(request)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[0][0].any()


def test_a_mask_whose_foreground_is_the_ignored_value_is_told(tmp_path, here):
    mask = np.where(draw_cells(0) > 0, np.uint8(255), np.uint8(0))
    partly = mask // 255
    partly[:4] = 255
    annotation = write_files(tmp_path, partly)
    tifffile.imwrite(tmp_path / "masks" / "t1.tif", mask)
    options = WeightOptions(kind="classes", ignore=255)
    report = make_weight_maps(WeightMapsRequest(str(tmp_path / "set.zarr"), annotation, options))
    assert len(report.notes) == 1
    assert "1 of 3 label images hold only background and the ignored value 255: t1" in report.notes[0]
    for number in (0, 2):
        tifffile.imwrite(tmp_path / "masks" / f"t{number}.tif", mask)
    with pytest.raises(InputError, match="If 255 is foreground, as in masks, leave `ignore` out"):
        make_weight_maps(WeightMapsRequest(str(tmp_path / "other.zarr"), annotation, options))


def test_notes_are_shown(tmp_path, here):
    report = make_weight_maps(request_for(tmp_path, np.where(draw_cells(0) > 0, np.uint8(255), np.uint8(0))))
    console = Console(record=True, width=400, file=io.StringIO())
    command = contextvars.copy_context()
    command.run(find_options.set, lambda: {"kind": "--kind"})
    command.run(show_weight_maps, console, report)
    shown = console.export_text()
    assert "note 1" in shown
    assert "--kind binary" in shown


def test_more_workers_than_cores_are_refused(tmp_path):
    request = request_for(tmp_path, draw_cells(0))
    with pytest.raises(ClusterError, match="workers=1000"):
        make_weight_maps(WeightMapsRequest(request.output, request.annotation, request.options, workers=Workers(1000)))


def test_a_set_that_another_process_writes_is_refused(tmp_path, here):
    from segment_slide.pipeline.storage.lock import hold

    request = request_for(tmp_path, draw_cells(0))
    with hold(request.output, lambda: None), pytest.raises(OutputError, match="being written by another run"):
        make_weight_maps(request)


SCRIPT = """
import sys
from tests.flows.test_weight_maps import draw_cells, make_weight_maps, request_for
from pathlib import Path

if __name__ == "__main__":
    make_weight_maps(request_for(Path(sys.argv[1]), draw_cells(0, shape=(130, 140), cells=30), kind="binary"))
"""


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_ends_with_the_bytes_of_an_undisturbed_one(tmp_path, here):
    labels = draw_cells(0, shape=(130, 140), cells=30)
    request = request_for(tmp_path, labels, kind="binary", output="undisturbed.zarr")
    expected = make_weight_maps(request)
    (tmp_path / "run.py").write_text(SCRIPT)
    weights = tmp_path / "set.zarr" / "000-image" / "weights"
    slowly = brake(tmp_path / "brake", weights / "c", 5)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "run.py", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **slowly, "PYTHONPATH": os.pathsep.join((slowly["PYTHONPATH"], str(ROOT)))},
    )
    wait_until(lambda: len(shards(weights)) >= 5, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert 5 <= len(shards(weights)) < expected.n_blocks
    report = make_weight_maps(request_for(tmp_path, labels, kind="binary"))
    assert report.n_done_before >= 4
    assert tree(tmp_path / "set.zarr") == tree(tmp_path / "undisturbed.zarr")


def test_a_damaged_annotation_leaves_what_is_done(tmp_path, here):
    request = request_for(tmp_path, draw_cells(0))
    (tmp_path / "labels" / "c" / "0" / "0").write_bytes(b"damaged")
    with pytest.raises(IncompleteError, match="unreadable chunk"):
        make_weight_maps(request)


# -- real data ---------------------------------------------------------------------------------------------------


def test_masks_of_membranes_with_six_images_that_nobody_annotated(tmp_path, here):
    images, labels = data("isbi2012", "image"), data("isbi2012", "label")
    annotation = AnnotationInput((images,), (labels,))
    report = make_weight_maps(WeightMapsRequest(str(tmp_path / "set.zarr"), annotation, WeightOptions(kind="binary")))
    assert len(report.training_set.images) == 24
    assert len(report.without_labels) == 6
    weights = report.training_set.class_weights
    assert weights[0] > weights[1]  # membranes are rare
    classes, found = read(report)
    assert set(np.unique(classes)) == {0, 1}
    assert found[classes == 0].max() > 10 > found[classes == 1].max()


def test_cells_of_a_tracking_challenge_are_paired_by_number(tmp_path, here):
    images, labels = data("dic_hela", "01"), data("dic_hela", "01_GT", "SEG")
    report = make_weight_maps(WeightMapsRequest(str(tmp_path / "set.zarr"), AnnotationInput((images,), (labels,))))
    gold = sorted(Path(labels).glob("*.tif"))
    assert [image.name for image in report.training_set.images] == [path.stem.replace("man_seg", "t") for path in gold]
    values = [tifffile.imread(path) for path in gold]
    total = sum(np.bincount((cut_ridges(value) > 0).ravel()) for value in values)
    assert report.training_set.class_weights == count_class_weights(total)
    expected = weight_map(values[3], class_weights=report.training_set.class_weights)
    np.testing.assert_array_equal(read(report, 3)[1], expected.weights)


def test_nuclei_in_colour_with_instance_ids(tmp_path, here):
    images, labels = sorted(Path(data("dsb2018", "images")).iterdir())[:3], Path(data("dsb2018", "labels"))
    masks = tuple(str(labels / f"{path.stem}.tif") for path in images)
    annotation = AnnotationInput(tuple(map(str, images)), masks)
    report = make_weight_maps(WeightMapsRequest(str(tmp_path / "set.zarr"), annotation))
    assert report.training_set.channel_names == ("R", "G", "B")
    assert report.training_set.images[0].image.open().pixel_bytes == 3
    assert all(read(report, number)[1].min() > 0 for number in range(3))


def test_a_volume_with_labels_inside_it(tmp_path, here):
    annotation = AnnotationInput((data("ome_zarr", "tubhiswt4D_sub.zarr"),), n_spatial=3)
    report = make_weight_maps(WeightMapsRequest(str(tmp_path / "set.zarr"), annotation))
    assert report.training_set.images[0].shape == (3, 2, 512, 512)
    assert report.training_set.images[0].n_planes_axes == 1
    assert report.training_set.pixel_size_um == (1.0, 1.0, 1.0)
