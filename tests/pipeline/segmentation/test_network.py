"""A network of another kind than the U-Net is planned and run without any change elsewhere."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zarr

from segment_slide.pipeline.blocks.progress import QuietStages
from segment_slide.pipeline.errors import IncompleteError, PlanError
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.pipeline.segmentation.plan import plan_segmentation
from segment_slide.pipeline.segmentation.prepare import Destination, prepare_segmentation
from segment_slide.pipeline.segmentation.stages import run_segmentation
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.source import ImageSource, select_source
from segment_slide.unet import open_network
from segment_slide.unet.checkpoint import Normalisation
from segment_slide.unet.device_facts import DeviceFacts
from segment_slide.unet.geometry import Locality
from segment_slide.unet.network import Output


@dataclass(frozen=True)
class Sums:
    """A network without weights: sums of 3x3 pixels, `reach` times, then of whole cells; bright cells are class 1.

    All sums are whole numbers that float32 holds exactly, so labels must be equal and not just nearly so.

    Parameters
    ----------
    reach : int
        Pixels per side that a score depends on.
    cell : int
        Side (px) of the cells: the stride.
    ndim : int
        Spatial axes.
    halo : int
        What is declared; too small if less than `reach`.
    """

    reach: int
    cell: int
    ndim: int
    halo: int

    in_channels = 1
    outputs = (Output("classes", "scores", 2),)
    n_parameters = 0
    summary = "sums"

    @property
    def axes(self) -> tuple[Locality, ...]:
        return (Locality(self.cell, self.halo),) * self.ndim

    def forward_flops(self, tile_px: tuple[int, ...]) -> int:
        return self.reach * 3**self.ndim * math.prod(tile_px)

    def activation_bytes(self, tile_px: tuple[int, ...], itemsize: int) -> int:
        return 3 * itemsize * math.prod(axis.read_size(size) for axis, size in zip(self.axes, tile_px, strict=True))

    @property
    def threshold(self) -> int:
        """Half of the largest sum."""
        return 255 * 3 ** (self.ndim * self.reach) * self.cell**self.ndim // 2

    def __call__(self, batch: torch.Tensor, /) -> torch.Tensor:
        """Zeros beyond the tile's halo: what they reach must lie in the halo."""
        pool = {2: torch.nn.functional.avg_pool2d, 3: torch.nn.functional.avg_pool3d}[self.ndim]
        for _ in range(self.reach):
            batch = pool(torch.nn.functional.pad(batch, [1, 1] * self.ndim), 3, stride=1, divisor_override=1)
        for axis in range(2, batch.ndim):
            batch = batch.narrow(axis, self.halo, batch.shape[axis] - 2 * self.halo)
        sums = pool(batch, self.cell, divisor_override=1)
        for axis in range(2, batch.ndim):
            sums = sums.repeat_interleave(self.cell, axis)
        return torch.cat([torch.full_like(sums, self.threshold), sums], dim=1)


@dataclass(frozen=True)
class StoredSums:
    """A file of such a network."""

    path: Path
    config = SimpleNamespace(
        classes=("background", "bright"),
        normalisation=Normalisation(offset=(0.0,), scale=(1.0,)),
        pixel_size_um=(),
    )

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def description(self) -> Sums:
        return Sums(**json.loads(self.path.read_text()))

    def check_weights(self) -> None:
        """It has none."""

    def load(self, device: torch.device, precision: str) -> Sums:
        assert (device.type, precision) == ("cpu", "float32")
        return self.description


@pytest.fixture(autouse=True)
def _table_of_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(open_network.OPENERS, ".sums", StoredSums)


def store_network(folder: Path, **sums: int) -> str:
    path = folder / "network.sums"
    path.write_text(json.dumps(sums))
    return str(path)


def store_image(folder: Path, pixels: np.ndarray) -> ImageSource:
    location = str(folder / "image.zarr")
    zarr.create_array(location, data=pixels, chunks=(16,) * pixels.ndim)
    image = describe_image(location, axes="zyx"[-pixels.ndim :])
    return select_source(image, n_spatial=pixels.ndim, n_channels=1)


def segment(folder: Path, source: ImageSource, model: str, options: SegmentOptions) -> np.ndarray:
    """Plan, prepare and run all stages into a fresh output; its labels."""
    network = open_network.open_network(model)
    plan = plan_segmentation(source, network.description, options)
    location = str(folder / f"out-{options.block}-{options.tile}-{options.tta}.ome.zarr")
    facts = DeviceFacts("cpu", "", "float32")
    prepared = prepare_segmentation(plan, network, Destination(location, options.name), facts)
    run_segmentation(prepared, None, QuietStages(), {})
    return zarr.open_array(f"{location}/labels/{options.name}/0", mode="r")[:]


def whole_image_labels(sums: Sums, pixels: np.ndarray) -> np.ndarray:
    """Oracle: numpy's mirrored padding and shifted sums of the whole image, in whole numbers."""
    whole = np.pad(
        pixels.astype(np.int64), [(sums.reach, sums.reach + -size % sums.cell) for size in pixels.shape], mode="reflect"
    )
    for _ in range(sums.reach):
        for axis in range(sums.ndim):
            whole = np.lib.stride_tricks.sliding_window_view(whole, 3, axis).sum(axis=-1)
    for axis in range(sums.ndim):
        whole = np.add.reduceat(whole, range(0, whole.shape[axis], sums.cell), axis).repeat(sums.cell, axis)
    return (whole > sums.threshold)[tuple(slice(size) for size in pixels.shape)]


@pytest.mark.parametrize(
    ("shape", "sums"),
    [
        ((50, 71), {"reach": 1, "cell": 1}),
        ((50, 71), {"reach": 3, "cell": 1}),
        ((50, 71), {"reach": 2, "cell": 3}),
        ((13, 20, 31), {"reach": 1, "cell": 2}),
    ],
    ids=str,
)
def test_another_network_is_tiled_as_the_whole_image_and_too_small_a_halo_is_noticed(tmp_path, shape, sums):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    source = store_image(tmp_path, pixels)
    network = Sums(**sums, ndim=len(shape), halo=sums["reach"])
    expected = whole_image_labels(network, pixels)
    model = store_network(tmp_path, **sums, ndim=len(shape), halo=sums["reach"])
    for options in (
        SegmentOptions(block=24, tile=12),
        SegmentOptions(block=12, tile=6),
        SegmentOptions(),
        SegmentOptions(block=24, tile=12, tta="flips"),
    ):
        assert np.array_equal(segment(tmp_path, source, model, options), expected), options
    assert 0.2 < expected.mean() < 0.8

    (tmp_path / "narrow").mkdir()
    model = store_network(tmp_path / "narrow", **sums, ndim=len(shape), halo=sums["reach"] - 1)
    narrow = segment(tmp_path / "narrow", source, model, SegmentOptions(block=12, tile=6))
    assert np.mean(narrow != expected) > 0.01


def test_a_block_whose_scores_overflow_is_named_and_all_others_are_stored(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 36)).astype(np.float32)
    sums = {"reach": 1, "cell": 1, "ndim": 2, "halo": 1}
    expected = whole_image_labels(Sums(**sums), pixels)
    pixels[4:8, 16:20] = 3e38
    source = store_image(tmp_path, pixels)
    options = SegmentOptions(block=12, tile=6)
    with pytest.raises(IncompleteError, match=r"1 of 6 blocks.*\n  block \(0, 1\): the network's scores.* to 3e\+38"):
        segment(tmp_path, source, store_network(tmp_path, **sums), options)
    labels = zarr.open_array(next(tmp_path.glob("out*")) / "labels" / options.name / "0", mode="r")[:]
    expected[:12, 12:24] = 0
    assert np.array_equal(labels, expected)


def test_sizes_off_another_networks_stride_are_refused(tmp_path):
    source = store_image(tmp_path, np.zeros((30, 30), np.uint8))
    network = Sums(reach=1, cell=3, ndim=2, halo=1)
    assert plan_segmentation(source, network, SegmentOptions()).parameters.block == 2049
    with pytest.raises(PlanError, match="block=25 px is not a positive multiple of the network's stride 3"):
        plan_segmentation(source, network, SegmentOptions(block=25))


def test_a_network_whose_axes_differ_is_refused(tmp_path):
    class Anisotropic(Sums):
        axes = (Locality(1, 2), Locality(1, 3))

    source = store_image(tmp_path, np.zeros((30, 30), np.uint8))
    with pytest.raises(PlanError, match="of the network differ, expected the same stride and halo"):
        plan_segmentation(source, Anisotropic(reach=3, cell=1, ndim=2, halo=3), SegmentOptions())
