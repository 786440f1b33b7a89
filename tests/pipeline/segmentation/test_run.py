"""The promise of the project: labels are the whole image's, whatever the chunks, tiles, blocks, windows and workers."""

import functools
import itertools
import math
from collections import Counter
from pathlib import Path
from typing import ClassVar

import dask
import numpy as np
import pytest
import torch
import zarr
from distributed import Client, LocalCluster
from zarr.storage import WrapperStore

from segment_slide.pipeline.blocks.canvas import window_array
from segment_slide.pipeline.blocks.tasks import while_some_survive
from segment_slide.pipeline.errors import IncompleteError, OutputError, UnreadableChunkError, WorkerDiedError
from segment_slide.pipeline.segmentation import output, record
from segment_slide.pipeline.segmentation import run as segment
from segment_slide.pipeline.segmentation.block import BlockJob, run_block
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.pipeline.segmentation.plan import SegmentPlan, plan_segmentation
from segment_slide.pipeline.segmentation.run import WORDING, canvas_of, segment_blocks
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.source import ImageSource, select_source
from segment_slide.pipeline.storage.store import stored_shards
from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import ModelConfig, Normalisation, save_checkpoint
from segment_slide.unet.model import UNet, whole_image_logits
from segment_slide.unet.network import InferenceSettings, NetworkUse
from segment_slide.unet.predict import Predictor
from tests.tiers import exhaustive

OFFSET, SCALE = 100.0, 50.0


def make_model(folder: Path, depth: int, ndim: int = 2, in_channels: int = 1) -> tuple[UNet, str, str]:
    """A random network of base 8 (4 in 3D), its checkpoint's path and sha256."""
    torch.manual_seed(depth)
    architecture = Architecture(base_channels=8 if ndim == 2 else 4, depth=depth, ndim=ndim, in_channels=in_channels)
    model = UNet(architecture).eval()
    _balance(model, 160 if ndim == 2 else 36)
    constants = Normalisation(offset=(OFFSET,) * in_channels, scale=(SCALE,) * in_channels)
    checkpoint = save_checkpoint(
        folder / f"{ndim}d{depth}.safetensors", model, ModelConfig(architecture, normalisation=constants)
    )
    return model, str(checkpoint.path), checkpoint.sha256


def _balance(model: UNet, size: int) -> None:
    """Shift the last bias so that both classes are as frequent on noise: a constant map would prove nothing."""
    noise = np.random.default_rng(0).integers(
        0, 255, (model.architecture.in_channels, *[size] * model.architecture.ndim)
    )
    logits = whole_image_logits(model, ((noise - OFFSET) / SCALE).astype(np.float32))
    model.classify.bias.data[1] -= float(np.median(logits[1] - logits[0]))


def store_image(folder: Path, pixels: np.ndarray, axes: str, chunk: int) -> ImageSource:
    """A bare Zarr array with square chunks, as the source of a network of its own dimensions."""
    location = str(folder / f"in-{axes}-{chunk}.zarr")
    chunks = [
        min(chunk, size) if axis in "yx" or pixels.ndim == 3 else 1
        for axis, size in zip(axes, pixels.shape, strict=True)
    ]
    array = zarr.create_array(location, shape=pixels.shape, chunks=tuple(chunks), dtype=pixels.dtype)
    array[:] = pixels
    n_spatial = 3 if axes == "zyx" else 2
    return select_source(describe_image(location, axes=axes), n_spatial=n_spatial, n_channels=1)


def whole_image_labels(model: UNet, pixels: np.ndarray, n_spatial: int) -> tuple[np.ndarray, np.ndarray]:
    """Oracle: labels and logits of each plane in one pass."""
    planes = pixels.reshape(-1, 1, *pixels.shape[pixels.ndim - n_spatial :]).astype(np.float32)
    logits = np.stack([whole_image_logits(model, (plane - OFFSET) / SCALE) for plane in planes])
    return logits.argmax(axis=1).reshape(pixels.shape), logits


def make_job(plan: SegmentPlan, model_path: str, sha256: str, location: str, **changes) -> BlockJob:
    """An output created at a location, and the job that fills it."""
    made = record.make_record(
        plan, model_path=model_path, model_sha256=sha256, classes=("background", "cell"), device_kind="cpu"
    )
    output.create_output(location, "cells", plan, made, in_place=False)
    settings = inference_settings(plan.tile_px, plan.network.in_channels, plan.concurrency)
    network = NetworkUse(model_path, sha256, settings)
    return BlockJob(plan.source, plan.grid, network, location, "labels/cells", **changes)


def inference_settings(tile_px: tuple[int, ...], n_channels: int = 1, concurrency: int = 1) -> InferenceSettings:
    return InferenceSettings(
        (OFFSET,) * n_channels,
        (SCALE,) * n_channels,
        tile_px,
        device="cpu",
        precision="float32",
        concurrency=concurrency,
    )


def run(folder, source, model, options, *, client=None, window=None, concurrency=1, number=0) -> np.ndarray:
    """Segment into a fresh output and return its labels."""
    network, path, sha256 = model
    plan = plan_segmentation(source, network.architecture, options, concurrency=concurrency)
    location = str(folder / f"out-{number}.ome.zarr")
    job = make_job(plan, path, sha256, location)
    assert segment_blocks(job, window or plan.window_blocks, set(), client=client) == []
    assert len(stored_shards(location, "labels/cells/0")) == plan.grid.n_blocks
    return zarr.open_array(f"{location}/labels/cells/0", mode="r")[:]


# One tile size per depth. Chunk of the input, times the tile is the block, window in blocks, on Dask, threads.
ALL_CASES = [
    (*case, bool(number % 2), 1 + number // 2 % 2)
    for number, case in enumerate(itertools.product((50, 128), (1, 2), ((1, 1, 1), (1, 2, 2), (2, 3, 1))))
]
PAIRWISE = [  # any two of these choices meet
    (128, 2, (1, 2, 2), False, 2),
    (50, 1, (1, 2, 2), True, 1),
    (50, 2, (1, 1, 1), False, 1),
    (50, 2, (2, 3, 1), True, 2),
    (128, 1, (1, 1, 1), True, 2),
    (128, 1, (2, 3, 1), False, 1),
]


@pytest.mark.parametrize(
    ("depth", "n_planes", "cases"),
    [
        pytest.param(2, 2, PAIRWISE, id="2"),
        pytest.param(4, 1, PAIRWISE[:2], id="4"),
        *(exhaustive(depth, 3, ALL_CASES, id=f"{depth}-all") for depth in (2, 3, 4)),
    ],
)
def test_labels_are_bit_identical_for_every_chunk_block_window_and_worker(depth, n_planes, cases, tmp_path, client):
    """Combinations against one serial run and against the whole image; sizes do not divide."""
    tile = 64 if depth < 4 else 96
    pixels = np.random.default_rng(depth).integers(0, 255, (n_planes, 2 * tile + 37, 3 * tile + 5), dtype=np.uint8)
    model = make_model(tmp_path, depth)
    expected, _ = whole_image_labels(model[0], pixels, n_spatial=2)
    sources = {chunk: store_image(tmp_path, pixels, "tyx", chunk) for chunk in (50, 128)}
    reference = None
    for number, (chunk, times, window, on_dask, concurrency) in enumerate(cases):
        options = SegmentOptions(block=tile * times, tile=tile)
        where = client if on_dask else None
        settings = {"client": where, "window": window, "concurrency": concurrency, "number": number}
        labels = run(tmp_path, sources[chunk], model, options, **settings)
        reference = labels if reference is None else reference
        assert np.array_equal(labels, reference), (chunk, times, window)
    assert np.mean(reference != expected) < 1e-4
    assert 0.02 < reference.mean() < 0.98


@pytest.mark.parametrize("depth", [1, exhaustive(2)])
def test_a_volume_is_segmented_as_a_whole_whatever_the_blocks(depth, tmp_path, client):
    pixels = np.random.default_rng(3).integers(0, 255, (30, 41, 53), dtype=np.uint8)
    model = make_model(tmp_path, depth, ndim=3)
    expected, _ = whole_image_labels(model[0], pixels, n_spatial=3)
    source = store_image(tmp_path, pixels, "zyx", 16)
    cases = [(24, (1, 1, 1), None), (48, (1, 1, 1), client), (24, (2, 2, 1), client), (48, (2, 2, 1), None)]
    results = [
        run(tmp_path, source, model, SegmentOptions(block=block, tile=24), client=where, window=window, number=number)
        for number, (block, window, where) in enumerate(cases)
    ]
    assert all(np.array_equal(labels, results[0]) for labels in results)
    assert np.mean(results[0] != expected) < 1e-4
    assert 0.02 < results[0].mean() < 0.98


@pytest.mark.parametrize("shape", [(1, 1), (5, 700), (90, 3), (130, 64)], ids=str)
def test_an_image_smaller_than_the_halo_is_mirrored_as_often_as_needed(shape, tmp_path, client):
    pixels = np.random.default_rng(1).integers(0, 255, shape, dtype=np.uint8)
    model = make_model(tmp_path, depth=4)
    expected, _ = whole_image_labels(model[0], pixels, n_spatial=2)
    source = store_image(tmp_path, pixels, "yx", 64)
    for number, where in enumerate((None, client)):
        labels = run(tmp_path, source, model, SegmentOptions(block=96, tile=48), client=where, number=number)
        assert np.array_equal(labels, expected)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_scores_agree_across_tile_sizes_to_a_ten_thousandth_of_their_spread(depth, tmp_path):
    """float32 logits of the whole image against tiles of three sizes; labels differ only at ties."""
    pixels = np.random.default_rng(5).integers(0, 255, (230, 300), dtype=np.uint8)
    network, *_ = make_model(tmp_path, depth)
    _, logits = whole_image_labels(network, pixels, n_spatial=2)
    geometry = network.architecture.geometry
    pads = [(0, 0), *[(geometry.halo, geometry.halo + -size % geometry.stride) for size in pixels.shape]]
    haloed = np.pad(pixels[None], pads, mode="reflect")
    margin = np.abs(logits[0, 0] - logits[0, 1])
    for tile in (48, 96, 240):
        predictor = Predictor(network, inference_settings((tile, tile)))
        scores = tiled_logits(predictor, haloed)[:, : pixels.shape[0], : pixels.shape[1]]
        assert np.abs(scores - logits[0]).max() < 1e-4 * logits.std()
        changed = scores.argmax(axis=0) != logits[0].argmax(axis=0)
        assert (margin[changed] < 1e-4 * logits.std()).all()


def tiled_logits(predictor: Predictor, haloed: np.ndarray) -> np.ndarray:
    """Scores tile by tile, put together; the predictor itself keeps only their argmax."""
    halo, (step, _) = predictor.description.axes[0].halo, predictor.tile_px
    height, width = (size - 2 * halo for size in haloed.shape[1:])
    rows = []
    for y in range(0, height, step):
        tiles = [
            haloed[:, y : min(y + step, height) + 2 * halo, x : min(x + step, width) + 2 * halo]
            for x in range(0, width, step)
        ]
        with torch.inference_mode():
            rows.append(np.concatenate([predictor._logits(predictor._to_device(t))[0].numpy() for t in tiles], axis=2))
    return np.concatenate(rows, axis=1)


def test_origins_off_by_4_px_change_labels(tmp_path):
    """Negative control: tiles that do not start at multiples of the stride give another segmentation."""
    pixels = np.random.default_rng(7).integers(0, 255, (1, 400, 400), dtype=np.uint8)
    network, _, _ = make_model(tmp_path, depth=4)
    predictor = Predictor(network, inference_settings((96, 96)))
    halo = network.architecture.geometry.halo
    aligned = predictor.predict(pixels[:, : 96 + 2 * halo, : 96 + 2 * halo]).labels
    shifted = predictor.predict(pixels[:, 4 : 100 + 2 * halo, 4 : 100 + 2 * halo]).labels
    again = predictor.predict(pixels[:, 16 : 112 + 2 * halo, 16 : 112 + 2 * halo]).labels
    assert np.mean(aligned[4:, 4:] != shifted[:-4, :-4]) > 0.01
    assert np.array_equal(aligned[16:, 16:], again[:-16, :-16])


def test_a_halo_with_the_edge_pixel_repeated_changes_labels(tmp_path):
    """Negative control of the mirroring: numpy's "symmetric" (dask's "reflect") is not what we do."""
    pixels = np.random.default_rng(8).integers(0, 255, (64, 64), dtype=np.uint8)
    model = make_model(tmp_path, depth=3)
    ours = run(tmp_path, store_image(tmp_path, pixels, "yx", 64), model, SegmentOptions(block=64, tile=64))
    halo = model[0].architecture.geometry.halo
    predictor = Predictor(model[0], inference_settings((64, 64)))
    reflected = predictor.predict(np.pad(pixels[None], [(0, 0), (halo, halo), (halo, halo)], mode="reflect")).labels
    repeated = predictor.predict(np.pad(pixels[None], [(0, 0), (halo, halo), (halo, halo)], mode="symmetric")).labels
    assert np.array_equal(ours, reflected)
    assert not np.array_equal(ours, repeated)


def test_each_pending_block_is_run_once_and_no_other(tmp_path, client):
    """Resume: only missing shards are computed, each once."""
    pixels = np.random.default_rng(9).integers(0, 255, (200, 300), dtype=np.uint8)
    network, path, sha256 = make_model(tmp_path, depth=2)
    plan = plan_segmentation(store_image(tmp_path, pixels, "yx", 64), network.architecture, SegmentOptions(block=64))
    job = make_job(plan, path, sha256, str(tmp_path / "out.ome.zarr"))
    done = {(0, 0), (1, 3), (3, 4)}
    for where in (None, client):
        reports = []
        assert segment_blocks(job, (2, 2), done, client=where, on_block=reports.append) == []
        assert sorted(report.index for report in reports) == sorted(set(plan.grid.indices()) - done)
        assert sum(report.n_pixels for report in reports) == pixels.size - sum(
            math.prod(s.stop - s.start for s in plan.grid.write_box(index)) for index in done
        )


def test_only_blocks_that_read_a_damaged_chunk_fail_and_are_named(tmp_path, client):
    pixels = np.random.default_rng(10).integers(0, 255, (256, 256), dtype=np.uint8)
    network, path, sha256 = make_model(tmp_path, depth=1)
    source = store_image(tmp_path, pixels, "yx", 32)
    plan = plan_segmentation(source, network.architecture, SegmentOptions(block=64, tile=64))
    Path(source.image.location, "c", "3", "3").write_bytes(b"not a chunk")
    touching = [
        index for index in plan.grid.indices() if all(s.start < 128 and s.stop > 96 for s in plan.grid.read_box(index))
    ]
    assert touching == [(1, 1), (1, 2), (2, 1), (2, 2)]
    for where, name in ((None, "serial"), (client, "dask")):
        job = make_job(plan, path, sha256, str(tmp_path / f"{name}.ome.zarr"))
        failures = segment_blocks(job, (4, 4), set(), client=where)
        assert [failure.index for failure in failures] == touching
        assert all("unreadable chunk 3/3" in failure.reason for failure in failures)
        assert stored_shards(job.location, "labels/cells/0") == set(plan.grid.indices()) - set(touching)


def test_an_output_that_cannot_be_written_ends_the_run_with_what_is_done_kept(tmp_path, client):
    pixels = np.zeros((128, 128), np.uint8)
    network, path, sha256 = make_model(tmp_path, depth=1)
    plan = plan_segmentation(store_image(tmp_path, pixels, "yx", 64), network.architecture, SegmentOptions(block=64))
    job = make_job(plan, path, sha256, str(tmp_path / "out.ome.zarr"))
    folder = tmp_path / "out.ome.zarr/labels/cells/0/c"
    folder.write_text("a file where the shards' folder should be")
    for where in (None, client):
        with pytest.raises(IncompleteError, match="cannot be written") as caught:
            segment_blocks(job, (2, 2), set(), client=where)
        assert isinstance(caught.value.__cause__, OutputError)


def test_a_windows_graph_is_bounded_and_reads_each_block_of_input_once(tmp_path):
    """The real graph of a window of 8 x 8 blocks, optimised as it is run."""
    pixels = np.zeros((1024, 1024), np.uint8)
    network, path, sha256 = make_model(tmp_path, depth=2)
    source = store_image(tmp_path, pixels, "yx", 256)
    plan = plan_segmentation(source, network.architecture, SegmentOptions(block=128, tile=64))
    job = make_job(plan, path, sha256, str(tmp_path / "out.ome.zarr"))
    (window,) = plan.grid.windows((8, 8))
    array = window_array(canvas_of(job, window), functools.partial(run_block, job))
    assert array.numblocks == (1, 10, 10)
    (optimised,) = dask.optimize(array)
    assert len(dict(optimised.__dask_graph__())) <= plan.n_tasks_per_window


class CountingStore(WrapperStore):
    """A store that counts reads and writes by key."""

    reads: ClassVar[Counter] = Counter()
    writes: ClassVar[Counter] = Counter()

    async def get(self, key, prototype, byte_range=None):
        type(self).reads[key] += 1
        return await self._store.get(key, prototype, byte_range)

    async def set(self, key, value):
        type(self).writes[key] += 1
        await self._store.set(key, value)


@pytest.mark.parametrize(("window", "most_reads"), [((4, 4), 4), exhaustive((2, 2), 16), ((1, 1), 16)], ids=str)
def test_each_input_chunk_is_read_a_bounded_number_of_times_and_each_shard_written_once(
    window, most_reads, tmp_path, monkeypatch
):
    """Chunks of the input do not fit the blocks: one is read by the blocks it touches and by the halos of windows."""
    pixels = np.random.default_rng(11).integers(0, 255, (512, 512), dtype=np.uint8)
    network, path, sha256 = make_model(tmp_path, depth=2)
    source = store_image(tmp_path, pixels, "yx", 50)
    plan = plan_segmentation(source, network.architecture, SegmentOptions(block=128, tile=64))
    job = make_job(plan, path, sha256, str(tmp_path / "out.ome.zarr"))
    open_plain = store.open_store
    monkeypatch.setattr(
        store, "open_store", lambda location, *, writable=False: CountingStore(open_plain(location, writable=writable))
    )
    CountingStore.reads.clear()
    CountingStore.writes.clear()
    settings = {"processes": False, "n_workers": 1, "threads_per_worker": 2, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**settings) as cluster, Client(cluster) as threads:
        assert segment_blocks(job, window, set(), client=threads) == []
    reads = {key: count for key, count in CountingStore.reads.items() if key.startswith("c/")}
    print(  # noqa: T201 - figures for people who run this with -s
        f"window {window}: {sum(reads.values()) / plan.grid.n_blocks:.1f} chunk reads per block, at most "
        f"{max(reads.values())} of one chunk; {len(reads) / plan.grid.n_blocks:.1f} chunks per block"
    )
    assert len(reads) == 11 * 11
    assert max(reads.values()) <= most_reads
    shards = {key: count for key, count in CountingStore.writes.items() if key.startswith("labels/cells/0/c/")}
    assert len(shards) == plan.grid.n_blocks
    assert set(shards.values()) == {1}


def test_a_background_block_that_fails_is_tried_again_and_then_named(tmp_path):
    pixels = np.zeros((128, 192), np.uint8)
    network, path, sha256 = make_model(tmp_path, depth=1)
    plan = plan_segmentation(store_image(tmp_path, pixels, "yx", 64), network.architecture, SegmentOptions(block=64))
    job = make_job(plan, path, sha256, str(tmp_path / "out.ome.zarr"), probabilities="uint8", probability_group="none")
    background = {(0, 0), (1, 2)}  # its probabilities have no array to go to, so writing it fails
    failures = segment_blocks(job, (2, 2), set(plan.grid.indices()) - background, background=background)
    assert [failure.index for failure in failures] == sorted(background)


def test_a_model_that_was_replaced_ends_the_run_at_once(tmp_path, client):
    """Going on would fail for every block."""
    pixels = np.zeros((128, 128), np.uint8)
    network, path, sha256 = make_model(tmp_path, depth=1)
    plan = plan_segmentation(store_image(tmp_path, pixels, "yx", 64), network.architecture, SegmentOptions(block=64))
    job = make_job(plan, path, "0" * len(sha256), str(tmp_path / "out.ome.zarr"))
    for where in (None, client):
        with pytest.raises(IncompleteError, match="the file was replaced"):
            segment_blocks(job, (2, 2), set(), client=where)


def test_small_windows_are_submitted_until_all_threads_have_work(tmp_path, client, monkeypatch):
    """Four threads and windows of one block: more than two windows are under way at a time."""
    pixels = np.zeros((64 * 12, 64), np.uint8)
    network, path, sha256 = make_model(tmp_path, depth=1)
    plan = plan_segmentation(store_image(tmp_path, pixels, "yx", 64), network.architecture, SegmentOptions(block=64))
    job = make_job(plan, path, sha256, str(tmp_path / "out.ome.zarr"))
    waiting, most = 0, 0
    submit = segment._submit_window

    def count(*arguments):
        nonlocal waiting, most
        futures = submit(*arguments)
        waiting += len(futures)
        most = max(most, waiting)
        return futures

    def on_block(_):
        nonlocal waiting
        waiting -= 1

    monkeypatch.setattr(segment, "_submit_window", count)
    assert segment_blocks(job, (1, 1), set(), client=client, on_block=on_block) == []
    assert 4 < most <= 2 * 4 + 2


def test_a_run_ends_when_every_block_ends_its_worker_and_not_when_some_do() -> None:
    died, other = WorkerDiedError("its worker died 4 times"), UnreadableChunkError("damaged")
    some = [((n, 0), None, error) for n, error in enumerate([died, died, None, died, died, other, died, died])]
    assert list(while_some_survive(some, 3, "block {}".format, WORDING)) == some
    seen = []
    many = [*some, *(((n, 0), None, died) for n in range(10, 99))]
    with pytest.raises(IncompleteError, match=r"3 blocks in a row .* block \(10, 0\)"):
        seen.extend(while_some_survive(many, 3, "block {}".format, WORDING))
