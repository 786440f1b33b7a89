"""From annotated files to scores by the commands alone: weight-maps, training-data, train, segment, evaluate."""

import csv
import json

import numpy as np
import pytest
import tifffile
from imageio.v3 import imwrite

from segment_slide.pipeline.storage.store import open_array
from segment_slide.pipeline.training.training_set import read_training_set
from segment_slide.unet.weight_map import cut_ridges
from tests.flows.support import run_here, run_installed, tree, write_array, write_ome

SAMPLES = ["-n", 60, "--tile", 48, "--depth", 2, "--elastic-std", 3]
TRAINING = [
    "--base-channels",
    6,
    "--dropout",
    0,
    "--steps",
    150,
    "--optimiser",
    "adamw",
    "--learning-rate",
    0.004,
    "--device",
    "cpu",
]


def cells(seed, size=96):
    """A grey image with discs that touch, dark where they do, and their ids."""
    random = np.random.default_rng(seed)
    ids = np.zeros((size, size), np.uint16)
    y, x = np.indices(ids.shape)
    for number, (top, left) in enumerate(random.uniform(8, size - 8, (14, 2)), start=1):
        ids[((y - top) ** 2 + (x - left) ** 2 < 11**2) & (ids == 0)] = number
    image = 60 + 90 * (cut_ridges(ids, 2) > 0) + random.normal(0, 12, ids.shape)
    return np.clip(image, 0, 255).astype(np.uint8), ids


@pytest.fixture(scope="module")
def annotated(tmp_path_factory):
    """Four PNG images and their masks as TIFF."""
    folder = tmp_path_factory.mktemp("annotated")
    (folder / "images").mkdir(), (folder / "masks").mkdir()
    for number in range(4):
        image, ids = cells(number)
        imwrite(folder / "images" / f"f{number}.png", image)
        tifffile.imwrite(folder / "masks" / f"f{number}.tif", ids)
    return folder


def weigh(annotated, output, *options):
    return run_here("weight-maps", annotated / "images", "--labels", annotated / "masks", "-o", output, *options)


@pytest.mark.slow
def test_a_person_gets_from_annotated_files_to_scores(annotated, tmp_path):
    folder = tmp_path
    commands = [
        ["weight-maps", annotated / "images", "--labels", annotated / "masks", "-o", folder / "set.zarr"],
        ["training-data", folder / "set.zarr", "-o", folder / "samples.zarr", *SAMPLES],
        ["train", folder / "samples.zarr", "-o", folder / "net.safetensors", *TRAINING],
    ]
    for command in commands:
        run = run_installed(*command)
        assert run.exit_code == 0, run.err
    assert "f" in run.out
    image, ids = cells(seed=9)
    slide = write_ome(folder / "slide.ome.zarr", image[None], "cyx")
    run = run_installed("segment", slide, "-m", folder / "net.safetensors", "-o", folder / "out.ome.zarr")
    assert run.exit_code == 0, run.err
    truth = write_array(folder / "truth.zarr", ids)
    found = folder / "out.ome.zarr" / "labels" / "segmentation"
    run = run_installed(
        "evaluate", found, truth, "--truth-axes", "yx", "--kind", "instances",
        "--json", folder / "scores.json", "--csv", folder / "scores.csv",
    )  # fmt: skip
    assert run.exit_code == 0, run.err
    content = json.loads((folder / "scores.json").read_text())
    assert "seg" in json.dumps(content).lower()
    assert list(csv.reader((folder / "scores.csv").read_text().splitlines()))
    labels = open_array(str(folder / "out.ome.zarr"), "labels/segmentation/0")[...]
    assert np.mean((labels > 0) == (ids > 0)) > 0.85


@pytest.mark.usefixtures("warm")
class TestInProcess:
    @pytest.mark.slow
    def test_each_command_again_changes_nothing(self, annotated, tmp_path):
        samples = ["training-data", tmp_path / "set.zarr", "-o", tmp_path / "samples.zarr"]
        found = []
        for _ in range(2):
            assert weigh(annotated, tmp_path / "set.zarr").exit_code == 0
            made = run_here(*samples, "-n", 8, "--tile", 16, "--depth", 1)
            assert made.exit_code == 0, made.err
            found.append(tree(tmp_path))
        assert found[0] == found[1]
        assert "weight" in run_here("info", tmp_path / "set.zarr").out
        assert "8 to learn from" in run_here("info", tmp_path / "samples.zarr").out

    def test_volumes_and_every_option_of_a_weight_map_reach_it(self, tmp_path):
        stack = np.stack([cells(seed)[1] for seed in (1, 1, 2, 2)])
        image = write_ome(tmp_path / "image.ome.zarr", (stack > 0).astype(np.uint8) * 90, "zyx")
        labels = write_array(tmp_path / "labels.zarr", stack)
        run = run_here(
            "weight-maps", image, "--labels", labels, "-o", tmp_path / "set.zarr", "--3d", "--w0", 4, "--sigma", 3,
            "--ridge", 2, "--no-balance", "--spacing", "2,1,1", "--ignore", 5, "--label-axes", "zyx",
            "--class-name", "gap", "--class-name", "cell", "--block", 64,
        )  # fmt: skip
        assert run.exit_code == 0, run.err
        found = read_training_set(tmp_path / "set.zarr")
        assert (found.n_spatial, found.class_names, found.class_weights) == (3, ("gap", "cell"), (1.0, 1.0))
        assert "gap" in run.out
        assert found.settings.w0 == 4.0
        assert found.settings.sigma_px == 3.0

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--kind", "masks"], "kind"),
            (["--w0", -1], "w0=-1.0"),
            (["--sigma", 0], "sigma_px=0.0"),
            (["--ridge", 99], "ridge_px=99"),
            (["--spacing", "a,b"], "--spacing='a,b'"),
            (["--channels", "DAPI"], "DAPI"),
            (["--block", 0], "block"),
        ],
    )
    def test_bad_options_of_weight_maps_are_refused(self, annotated, tmp_path, options, message):
        run = weigh(annotated, tmp_path / "set.zarr", *options)
        assert run.exit_code == 2
        assert message in run.err
        assert "Traceback" not in run.err
        assert not list(tmp_path.rglob("*"))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["-n", 0], "n=0"),
            (["--tile", "big"], "--tile='big'"),
            (["--tile", "17"], "stride 2"),
            (["--depth", 9], "depth=9"),
            (["--foreground-share", 2], "foreground_share=2.0"),
            (["--elastic-std", -1], "elastic_std_px=-1.0"),
            (["--rotation", "some"], "rotation='some'"),
            (["--normalise", "histogram"], "normalisation kind='histogram'"),
            (["--validation", 1.5], "1.5"),
            (["--validation-image", "f9"], "f9"),
        ],
    )
    def test_bad_options_of_training_data_are_refused(self, annotated, tmp_path, options, message):
        if not (annotated / "set.zarr").exists():
            assert weigh(annotated, annotated / "set.zarr").exit_code == 0
        command = ["training-data", annotated / "set.zarr", "-o", tmp_path / "samples.zarr", "--depth", 1, "--tile", 16]
        run = run_here(*command, *options)
        assert run.exit_code == 2, run.out
        assert message in run.err
        assert "Traceback" not in run.err
        assert not list(tmp_path.rglob("*"))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--kind", "objects"], "kind='objects'"),
            (["--kind", "instances", "--iou", "high"], "--iou='high'"),
            (["--kind", "instances", "--iou", "0.3"], "0.3"),
            (["--truth-level", 3], "level"),
        ],
    )
    def test_bad_options_of_evaluate_are_refused(self, annotated, options, message):
        mask = annotated / "masks" / "f0.tif"
        run = run_here("evaluate", mask, mask, *options)
        assert run.exit_code == 2, run.out
        assert message in run.err
        assert "Traceback" not in run.err

    def test_files_of_two_folders_are_paired_by_name(self, tmp_path):
        first, second = cells(0)[1], cells(1)[1]
        for side, names in (("found", ("t000", "t001")), ("truth", ("t001", "t002"))):
            (tmp_path / side).mkdir()
            for name, mask in zip(names, (first, second), strict=True):
                tifffile.imwrite(tmp_path / side / f"{name}.tif", mask)
        run = run_here("evaluate", tmp_path / "found", tmp_path / "truth", "--kind", "instances")
        assert run.exit_code == 2
        assert "t002.tif" in run.err
        (tmp_path / "truth" / "t002.tif").unlink()
        run = run_here("evaluate", tmp_path / "found", tmp_path / "truth", "--kind", "instances")
        assert run.exit_code == 0, run.err
        assert "1 of 2 files of the prediction have no truth" in run.out
        assert "1.0000" not in run.out.split("SEG")[1].splitlines()[0]

    def test_a_segmentation_is_perfect_against_itself(self, annotated):
        mask = annotated / "masks" / "f0.tif"
        run = run_here("evaluate", mask, mask, "--kind", "instances")
        assert run.exit_code == 0, run.err
        assert "1.000" in run.out
