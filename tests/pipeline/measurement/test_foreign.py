"""Label images that other tools wrote are measured with their own ids, as scikit-image measures them."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import skimage.measure
import zarr
from scipy import ndimage

from segment_slide.flows.measure import MeasureReport, measure_objects
from segment_slide.flows.requests import MeasureRequest, Workers
from segment_slide.pipeline.errors import InputError, OutputError, OutputMismatchError
from segment_slide.pipeline.measurement import input as measure_input
from segment_slide.pipeline.measurement.fragments import share_out
from segment_slide.pipeline.measurement.options import ImageChoice, LabelChoice
from segment_slide.pipeline.storage.image import describe_image
from tests.flows.support import tree, write_group
from tests.pipeline.measurement.support import draw_objects, write_store
from tests.pipeline.viewer.support import list_labels, write_image
from tests.pipeline.viewer.web import web_server

SHAPE = (130, 150)
SPREAD = [(1 << 63) - 1, 3, (1 << 40) + 1, 1 << 32, 77, (1 << 53) + 1, 12]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one chunk, so that objects lie in several."""
    monkeypatch.setattr(measure_input, "_block_side", lambda chunk, _: chunk)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster changes nothing here; other tests compare both."""
    monkeypatch.setattr("segment_slide.flows.measure._open_workers", lambda *_: contextlib.nullcontext())


def pixels_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 60000, shape).astype(np.uint16)


def spread(ids: np.ndarray, values: Sequence[int] = SPREAD) -> np.ndarray:
    """The same objects with ids that have gaps, in no order."""
    n = int(ids.max())
    table = np.array([0, *values[:n], *(1000 + 7 * k for k in range(n - len(values[:n]), 0, -1))], np.int64)
    return table[ids]


def labelled(
    folder: Path, labels: np.ndarray, axes: str = "yx", image_axes: str = "yx", **more: Any
) -> tuple[str, Any]:
    """An image with ``labels/cells``, as another tool may have written them."""
    shape = [dict(zip(axes, labels.shape, strict=True)).get(axis, 1) for axis in image_axes]
    image = pixels_of(*shape)
    path = write_image(folder / "image.ome.zarr", image, image_axes, scale=[0.5] * len(shape), **more)
    write_image(path / "labels/cells", labels, axes, scale=[0.5] * labels.ndim, label={}, **more)
    list_labels(path, "cells", version=more.get("version", "0.5"))
    return str(path), image


def measure(location: str, labels: str = "cells", **changes: Any) -> tuple[MeasureReport, dict[str, np.ndarray]]:
    choice = LabelChoice(labels, changes.pop("ndim", None), changes.pop("table", None), changes.pop("output", None))
    report = measure_objects(MeasureRequest(location, labels=choice, workers=Workers(1), **{"rows": 20, **changes}))
    table = pq.read_table(report.table)
    return report, {name: table[name].to_numpy() for name in table.column_names}


def check(found: dict[str, np.ndarray], labels: np.ndarray, image: np.ndarray | None) -> None:
    """Rows are those of ``regionprops``, which needs small ids: it is given ranks."""
    ids, ranks = np.unique(labels, return_inverse=True)
    ranks = ranks.reshape(labels.shape) + (0 if ids[0] == 0 else 1)
    ids = ids[ids != 0]
    np.testing.assert_array_equal(found["id"], ids)
    names = ("label", "area", "centroid", "perimeter") if labels.ndim == 2 else ("label", "area", "centroid")
    wanted = skimage.measure.regionprops_table(ranks, properties=names)
    np.testing.assert_array_equal(found["area_px" if labels.ndim == 2 else "volume_px"], wanted["area"])
    for k, axis in enumerate("zyx"[-labels.ndim :]):
        np.testing.assert_allclose(found[f"centroid_{axis}_px"], wanted[f"centroid-{k}"], rtol=1e-12)
        np.testing.assert_allclose(found[f"centroid_{axis}_um"], wanted[f"centroid-{k}"] * 0.5, rtol=1e-12)
    if labels.ndim == 2:
        np.testing.assert_allclose(found["perimeter_px"], wanted["perimeter"], rtol=1e-12)
    if image is not None:
        means = ndimage.mean(image, ranks, wanted["label"])
        np.testing.assert_allclose(found["intensity_mean_0"], means, rtol=1e-12)


@pytest.mark.parametrize("version", ["0.5", "0.4"])
@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "uint16", "bool"])
def test_ids_with_gaps_in_any_order_are_kept(tmp_path, dtype, version):
    labels = draw_objects(SHAPE)
    if dtype in ("int64", "uint64"):
        labels = spread(labels)
    location, image = labelled(tmp_path, labels.astype(dtype), version=version)
    before = tree(Path(location))
    report, found = measure(location)
    check(found, labels.astype(dtype).astype(np.int64), image)
    assert set(found["class_name"].tolist()) == {"cells"}
    assert report.table == f"{location}/tables/cells.parquet"
    assert any("one object, also where they do not touch" in note for note in report.notes)
    after = tree(Path(location))
    assert {path: after[path] for path in before} == before, "the image and its labels stay as they are"
    assert all(path.startswith("tables/") for path in set(after) - set(before))
    np.testing.assert_array_equal(describe_image(location).array()[...], image)
    if dtype == "int64":
        assert report.n_parts > 2
        assert found["id"].max() == SPREAD[0]


def test_pieces_that_do_not_touch_are_one_object(tmp_path):
    labels = np.zeros(SHAPE, np.int32)
    labels[3:10, 5:20] = labels[100:110, 120:140] = 9
    location, image = labelled(tmp_path, labels)
    _, found = measure(location)
    check(found, labels, image)
    assert found["area_px"].tolist() == [7 * 15 + 10 * 20]


@pytest.mark.parametrize(
    ("axes", "image_axes"),
    [("yx", "tyx"), ("tyx", "yx"), ("tczyx", "yx"), ("yx", "tczyx"), ("cyx", "zyx"), ("zyx", "tcyx")],
)
def test_axes_of_one_pixel_may_be_on_one_side_only(tmp_path, axes, image_axes):
    labels = draw_objects(SHAPE).astype(np.int32)
    location, image = labelled(tmp_path, labels.reshape((1,) * (len(axes) - 2) + SHAPE), axes, image_axes)
    _, found = measure(location)
    check(found, labels, image.reshape(SHAPE))


@pytest.mark.parametrize("axes", ["yx", "tyx", "zyx"])
def test_axes_of_one_pixel_may_be_on_one_side_only_for_our_own_objects_too(tmp_path, axes):
    ids = draw_objects((40, 50))
    location = write_store(tmp_path, ids, (20, 25), image=pixels_of(40, 50))
    other = write_image(tmp_path / "other.zarr", pixels_of(40, 50).reshape((1,) * (len(axes) - 2) + (40, 50)), axes)
    report = measure_objects(
        MeasureRequest(location, "cells", ImageChoice(str(other)), labels=LabelChoice(table="o"), workers=Workers(1))
    )
    found = pq.read_table(report.table)
    means = ndimage.mean(pixels_of(40, 50), ids, np.arange(1, ids.max() + 1))
    np.testing.assert_allclose(found["intensity_mean_0"].to_numpy(), means, rtol=1e-12)


def test_objects_of_a_volume_extend_along_z_unless_planes_are_asked_for(tmp_path):
    labels = spread(draw_objects((20, 40, 50), sigma=1.5), [1 << 58, 3, (1 << 40) + 1])
    location, image = labelled(tmp_path, labels, "zyx", "zyx")
    _, found = measure(location)
    check(found, labels, image)
    report, planes = measure(location, ndim=2, table="planes")
    keys = [(z, i) for z in range(20) for i in np.unique(labels[z]) if i]
    assert list(zip(planes["z"].tolist(), planes["id"].tolist(), strict=True)) == keys
    areas = [int((labels[z] == i).sum()) for z, i in keys]
    assert planes["area_px"].tolist() == areas
    assert report.n_objects == len(keys)


def test_ids_that_leave_no_bits_for_the_plane_are_refused(tmp_path):
    labels = np.zeros((5, 20, 20), np.int64)
    labels[2, 3:9, 4:8] = SPREAD[0]
    location, _ = labelled(tmp_path, labels, "tyx", "tyx")
    with pytest.raises(InputError, match=r"id 9223372036854775807 is too large for an image of 5 planes"):
        measure(location)


def test_ids_that_come_again_at_another_time_are_rows_of_their_own(tmp_path):
    labels = np.stack([draw_objects((60, 70), seed=seed) for seed in range(3)]).astype(np.int64) * 5
    location, image = labelled(tmp_path, labels, "tyx", "tcyx")
    _, found = measure(location)
    for t in range(3):
        rows = {name: values[found["t"] == t] for name, values in found.items()}
        check(rows, labels[t], image[t, 0])


def test_labels_in_a_store_of_their_own_are_named_by_their_path(tmp_path):
    labels = spread(draw_objects(SHAPE))
    location, image = labelled(tmp_path, labels)
    other = write_image(tmp_path / "masks.ome.zarr", labels[None], "cyx", scale=[1, 0.5, 0.5])
    report, found = measure(location, str(other))
    check(found, labels, image)
    assert report.table.endswith("tables/masks.parquet")
    bare = tmp_path / "bare.zarr"
    zarr.create_array(bare, data=labels, chunks=(64, 64))
    assert measure(location, str(bare), image=ImageChoice(location))[0].n_objects == len(found["id"])


def test_the_level_that_is_as_large_as_the_labels_is_measured(tmp_path):
    image = pixels_of(*SHAPE)
    path = write_image(tmp_path / "a.zarr", image, "yx", n_levels=3, scale=[0.25, 0.25])
    labels = draw_objects((65, 75)).astype(np.int32)
    write_image(path / "labels/cells", labels, "yx", scale=[0.5, 0.5], label={})
    list_labels(path, "cells")
    _, found = measure(str(path))
    check(found, labels, image[::2, ::2])


def test_the_table_may_be_written_elsewhere_so_that_an_address_can_be_measured(tmp_path):
    labels = spread(draw_objects(SHAPE))
    location, image = labelled(tmp_path, labels)
    before = tree(Path(location))
    output = str(tmp_path / "tables.ome.zarr")
    with web_server(tmp_path) as web:
        address = f"{web.address}/image.ome.zarr"
        with pytest.raises(OutputError, match="on a web server, which cannot be written; .* as `output`"):
            measure(address)
        report, found = measure(address, output=output)
    check(found, labels, image)
    assert report.table == f"{output}/tables/cells.parquet"
    assert tree(Path(location)) == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("a")
    with pytest.raises(OutputError, match="is no Zarr group"):
        measure(location, output=str(tmp_path / "notes"))


def test_without_objects_the_table_has_no_rows(tmp_path):
    location, _ = labelled(tmp_path, np.zeros(SHAPE, np.int64))
    report, found = measure(location)
    assert (report.n_objects, report.n_parts, len(found["id"])) == (0, 1, 0)


def test_an_interrupted_run_goes_on_with_equal_bytes(tmp_path, monkeypatch):
    location, _ = labelled(tmp_path, spread(draw_objects(SHAPE)))
    whole, _ = measure(location)
    bytes_of = tree(Path(whole.table))
    again, _ = measure(location)
    assert again.n_parts_done_before == whole.n_parts
    Path(whole.table, "part-00001.parquet").unlink()
    measure(location)
    assert tree(Path(whole.table)) == bytes_of


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"value": -1}, "the id at y=7, x=9 is -1, expected 0 for background and ids above 0"),
        ({"dtype": "float32"}, "dtype float32, expected integers"),
        ({"labels": "nuclei"}, "has no such label image, and it is no path; there are cells"),
        ({"labels": "nuclei", "listed": {"labels": ["cells", 3, None, "../x"]}}, "it is no path; there are cells"),
        ({"labels": "nuclei", "listed": {"labels": "cells"}}, "it is no path; there are none"),
        ({"labels": "nuclei", "listed": "damaged"}, "it is no path; there are none"),
        ({"channels": 2}, "2 channels"),
        ({"size": (60, 70)}, "does not fit the labels'"),
        ({"image": None}, "holds no image"),
        ({"ndim": 3}, "no z"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(tmp_path, change, says):
    labels = draw_objects(SHAPE).astype(change.get("dtype", "int64"))
    labels[7, 9] = change.get("value", labels[7, 9])
    n_channels = change.get("channels", 1)
    labels, axes = (np.stack([labels] * n_channels), "cyx") if n_channels > 1 else (labels, "yx")
    location, _ = labelled(tmp_path, labels, axes)
    if "size" in change:
        shutil.rmtree(Path(location, "labels/cells"))
        write_image(Path(location, "labels/cells"), np.ones(change["size"], np.int32), "yx", label={})
    if "listed" in change:
        write_group(Path(location, "labels"), {"ome": change["listed"]})
    if "image" in change:
        Path(location, "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(InputError, match=says):
        measure(location, change.get("labels", "cells"), ndim=change.get("ndim"))
    assert not list(Path(location).glob("tables/*.parquet"))
    assert not list(Path(location).glob("tables/*.work"))


def test_labels_beside_a_segmentation_are_measured_in_the_image_that_was_segmented(tmp_path):
    image = pixels_of(40, 50)
    location = write_store(tmp_path, draw_objects((40, 50)), (20, 25), image=image)
    labels = spread(draw_objects((40, 50), seed=1))
    write_image(Path(location, "labels/corrected"), labels, "yx", scale=[0.5, 0.5], label={})
    _, found = measure(location, "corrected")
    check(found, labels, image)


def test_a_map_of_classes_is_not_taken_for_objects(tmp_path):
    location = write_store(tmp_path, draw_objects((40, 50)), (20, 25), image=pixels_of(40, 50))
    with pytest.raises(InputError, match="is a map of classes, not of objects"):
        measure(location)


def test_another_image_is_measured_beside_the_first(tmp_path):
    location, image = labelled(tmp_path, draw_objects(SHAPE).astype(np.int32))
    first, _ = measure(location)
    other = write_image(tmp_path / "other.zarr", image[::-1], "yx")
    with pytest.raises(OutputMismatchError, match=r"`table='cells-2'`; measure as it was begun; or delete"):
        measure(location, image=ImageChoice(str(other)))
    before = tree(Path(first.table))
    _, found = measure(location, image=ImageChoice(str(other)), table="cells-2")
    check(found, draw_objects(SHAPE), image[::-1])
    assert tree(Path(first.table)) == before
    with pytest.raises(Exception, match="name="):
        measure(location, table="../x")


def test_ids_are_shared_out_to_parts_of_bounded_size_however_they_are_spread():
    random = np.random.default_rng(0)
    for ids in (
        np.arange(1, 5000, dtype=np.uint64),
        random.integers(1, 1 << 63, 5000).astype(np.uint64),
        np.concatenate([np.arange(1, 3000), (1 << 50) + np.arange(3000)]).astype(np.uint64),
    ):
        blocks = [np.sort(part) for part in np.array_split(random.permutation(ids), 7)]
        starts = np.array(share_out(lambda blocks=blocks: blocks, 100), np.uint64)
        counts = np.bincount(np.searchsorted(starts, ids, side="right"))
        assert counts[0] == 0, "each id has a part"
        assert counts.max() <= 100
        assert len(starts) < 3 * len(ids) / 100, "few parts"
