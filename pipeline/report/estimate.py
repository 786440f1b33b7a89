"""How much of an image each class takes, counted on a coarse level of the labels: for outputs without a table."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from segment_slide.pipeline.errors import UnreadableChunkError
from segment_slide.pipeline.pictures.layer import lie
from segment_slide.pipeline.report.facts import Facts
from segment_slide.pipeline.report.places import CountMap, count_points, plan_map
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import StoredImage, describe_image

_MOST_PX = 1 << 24


@dataclass(frozen=True, eq=False)
class ClassAreas:
    """Shares of pixels.

    Attributes
    ----------
    shares : dict
        Of each label value but 0, between 0 and 1.
    step : float
        Pixels of the image per pixel that was counted, along x; 1 if all were counted.
    is_exact : bool
        Whether all pixels were counted.
    shown : CountMap
        Pixels of any class in the plane that pictures show.
    per_plane : ndarray of float64, or None
        Share of each plane (z) or time (t) of that level that any class takes, for images that have several.
    plane_axis : str
        Which of these.
    """

    shares: dict[int, float]
    step: float
    is_exact: bool
    shown: CountMap
    per_plane: np.ndarray | None
    plane_axis: str


def estimate_areas(facts: Facts, plane: Mapping[str, int], window_px: int) -> ClassAreas | None:
    """Count a level of the labels.

    Parameters
    ----------
    facts : Facts
        Of an output that is complete.
    plane : mapping
        Plane per axis ("t", "z") that pictures show.
    window_px : int
        Side of the windows that places are looked for with.

    Returns
    -------
    ClassAreas or None
        None if the labels have no level that is small enough, or are not complete: what is missing would be background.

    Raises
    ------
    UnreadableChunkError
        If a chunk is damaged.
    """
    level = _choose_level(facts)
    if level is None or not facts.is_complete:
        return None
    pixels = _read(level)
    values, counts = np.unique(pixels, return_counts=True)
    labels = facts.labels
    axis = next((axis for axis in "zt" if level.size(axis) > 1), "")
    others = tuple(k for k, letter in enumerate(level.axes) if letter != axis)
    places = {name: lie(level, labels, name) for name in level.axes}
    index = tuple(
        slice(None) if name in "yx" else _nearest(plane.get(name, 0), places[name], level.size(name))
        for name in level.axes
    )
    y, x = np.nonzero(pixels[index])
    empty = plan_map((labels.size("y"), labels.size("x")), window_px)
    at = [where * step + start for where, (step, start) in ((y, places["y"]), (x, places["x"]))]
    return ClassAreas(
        shares={int(v): int(n) / pixels.size for v, n in zip(values, counts, strict=True) if v},
        step=places["x"][0],
        is_exact=level.level == labels.level,
        shown=replace(empty, counts=count_points(empty, at[0], at[1])),
        per_plane=(pixels != 0).mean(axis=others) if axis else None,
        plane_axis=axis,
    )


def _nearest(index: int, place: tuple[float, float], size: int) -> int:
    step, start = place
    return min(max(round((index - start) / step), 0), size - 1)


def _choose_level(facts: Facts) -> StoredImage | None:
    """The finest that is small enough."""
    for number in range(facts.labels.level, len(facts.labels.multiscale.levels)):
        level = describe_image(facts.labels.location, level=number)
        if np.prod(level.shape, dtype=float) <= _MOST_PX:
            return level
    return None


def _read(level: StoredImage) -> np.ndarray:
    try:
        return np.asarray(level.array()[...])
    except Exception as error:  # codecs raise whatever they like on damaged bytes
        where = store.join(level.location, level.array_path)
        raise UnreadableChunkError(f"{where} cannot be read ({type(error).__name__}: {error})") from error
