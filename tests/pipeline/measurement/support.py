"""A store as a segmentation and its instances leave it: image, classes, ids, probabilities, written without either."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import skimage.measure
from scipy import ndimage

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.measurement.open import open_input
from segment_slide.pipeline.measurement.options import ImageChoice
from segment_slide.pipeline.measurement.plan import MeasurePlan, begin, plan_measurement
from segment_slide.pipeline.measurement.run import measure_blocks, write_table
from segment_slide.pipeline.storage import ome, store
from segment_slide.pipeline.storage.fingerprint import fingerprint
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.record import ATTRIBUTE
from tests.flows.support import write_ome

NAME = "cells"
CLASSES = ("background", "nucleus", "debris")
NO_IMAGE = ImageChoice(no_image=True)


def draw_objects(shape: Sequence[int], *, seed: int = 0, sigma: float = 2.0) -> np.ndarray:
    """Blobs, objects of one pixel, a line, a diagonal line and a frame that runs along the whole border; uint32 ids."""
    random = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(random.random(shape), sigma, mode="wrap") > 0.51
    mask[tuple(slice(1, size - 1) for size in shape)] &= True
    rim = np.ones(shape, bool)
    rim[tuple(slice(1, size - 1) for size in shape)] = False
    moat = np.ones(shape, bool)
    moat[tuple(slice(2, size - 2) for size in shape)] = False
    mask = (mask & ~moat) | rim
    spots = tuple(random.integers(3, size - 3, 12) for size in shape)
    for spot in zip(*spots, strict=True):
        mask[tuple(slice(at - 1, at + 2) for at in spot)] = False
        mask[spot] = True
    return ndimage.label(mask, np.ones((3,) * len(shape)))[0].astype(np.uint32)


def classes_of(ids: np.ndarray) -> np.ndarray:
    """A class for each object; some of its pixels have none, as holes that were filled."""
    classes = np.where(ids > 0, 1 + ids % 2, 0).astype(np.uint8)
    holes = np.random.default_rng(1).random(ids.shape) < 0.2
    first = np.unique(ids, return_index=True)[1]
    holes.flat[first] = False  # one pixel of each keeps its class
    return np.where(holes, 0, classes).astype(np.uint8)


def write_store(
    folder: Path,
    ids: np.ndarray,
    block: Sequence[int],
    *,
    axes: str = "yx",
    ndim: int = 2,
    image: np.ndarray | None = None,
    image_axes: str = "yx",
    channels: Sequence[str] = (),
    ranges: dict[str, tuple[int, int]] | None = None,
    scores: np.ndarray | None = None,
    scale: Sequence[float] | None = None,
    translation: Sequence[float] | None = None,
    unit: str | None = "micrometer",
    n_objects: int | None = None,
    classes: np.ndarray | None = None,
) -> str:
    """Write it all; return the store's location."""
    location = str(folder / "out.ome.zarr")
    record: dict[str, Any] = {"model": {"classes": list(CLASSES)}}
    if image is not None:
        stored = describe_image(write_ome(folder / "image.ome.zarr", image, image_axes, channels=channels))
        record["input"] = {
            "location": stored.location,
            "array": stored.array_path,
            "level": 0,
            "axes": image_axes,
            "ranges": {} if ranges is None else {axis: list(ends) for axis, ends in ranges.items()},
            "fingerprint": fingerprint(stored),
        }
    level = ome.Level("0", tuple(scale or (1.0,) * ids.ndim), tuple(translation or (0.0,) * ids.ndim))
    seen = ome.Multiscale(axes, (unit,) * ids.ndim, (level,), NAME)
    store.create_group(location, "", [], {ATTRIBUTE: {"shows": f"labels/{NAME}"}})
    names = [NAME, f"{NAME}-instances"]
    store.create_group(location, "labels", [], {"ome": {"version": ome.VERSION, "labels": names}})
    classes = classes_of(ids) if classes is None else classes
    _write(location, f"labels/{NAME}", classes, block, axes, ome.label_attributes(seen, CLASSES), record)
    made = {
        "parameters": {"ndim": ndim},
        "input": {"location": f"{location}/labels/{NAME}", "array": "0"},
        "n_objects": int(ids.max()) if n_objects is None else n_objects,
    }
    _write(location, f"labels/{NAME}-instances", ids, block, axes, ome.label_attributes(seen), made)
    if scores is not None:
        where = int(axes.startswith("t"))
        block = (*block[:where], scores.shape[where], *block[where:])
        step = ome.Level("0", (1.0,) * scores.ndim, (0.0,) * scores.ndim)
        shown = ome.Multiscale(axes[:where] + "c" + axes[where:], (None,) * scores.ndim, (step,))
        store.create_group(location, "probability", [], {})
        group = f"probability/{NAME}"
        _write(location, group, scores, block, shown.axes, ome.multiscale_attributes(shown), record)
    return location


def _write(
    location: str, group: str, pixels: np.ndarray, block: Sequence[int], axes: str, shown: Any, record: Any
) -> None:
    spec = ArraySpec("0", pixels.shape, tuple(block), tuple(block), str(pixels.dtype), axes)
    store.create_group(location, group, [spec], {"ome": shown, ATTRIBUTE: record})
    store.open_array(location, f"{group}/0", writable=True)[...] = pixels


def plan_of(location: str, choice: ImageChoice | None = None, rows: int = 1 << 18) -> MeasurePlan:
    return plan_measurement(location, NAME, open_input(location, NAME, choice or ImageChoice()), rows)


def measure(location: str, choice: ImageChoice | None = None, rows: int = 1 << 18) -> dict[str, np.ndarray]:
    """The whole table, measured here."""
    plan = plan_of(location, choice, rows)
    begin(plan)
    write_table(plan, measure_blocks(plan))
    return read(plan)


def read(plan: MeasurePlan) -> dict[str, np.ndarray]:
    table = pq.read_table(store.join(plan.location, plan.table))
    return {name: table[name].to_numpy() for name in table.column_names}


def expected_of(ids: np.ndarray, names: Sequence[str], **choices: Any) -> dict[str, np.ndarray]:
    """scikit-image's measures of the whole image, objects in rising order of their ids."""
    return skimage.measure.regionprops_table(ids, properties=("label", *names), **choices)
