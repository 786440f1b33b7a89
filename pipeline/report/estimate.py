"""Area that each class covers, counted on a coarse level of the labels: for outputs without a table."""

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
    """Shares of pixels per class.

    Attributes
    ----------
    shares : dict
        Share of each label value except 0, between 0 and 1.
    step : float
        Pixels of the image per counted pixel, along x; 1 if all were counted.
    is_exact : bool
        Whether all pixels were counted.
    shown : CountMap
        Pixels of any class in the plane that the pictures show.
    per_plane : ndarray of float64, or None
        Share of pixels of any class, for each plane (z) or time (t); None if the image has only one.
    plane_axis : str
        The axis of `per_plane`.
    """

    shares: dict[int, float]
    step: float
    is_exact: bool
    shown: CountMap
    per_plane: np.ndarray | None
    plane_axis: str


def estimate_areas(facts: Facts, plane: Mapping[str, int], window_px: int) -> ClassAreas | None:
    """Count the classes on a level of the labels.

    Parameters
    ----------
    facts : Facts
        A complete output.
    plane : mapping
        Plane per axis ("t", "z") that the pictures show.
    window_px : int
        Side of the windows in which interesting places are searched.

    Returns
    -------
    ClassAreas or None
        None if the labels have no level that is small enough, or are incomplete (missing blocks look like background).

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
    at = [index * step + start for index, (step, start) in ((y, places["y"]), (x, places["x"]))]
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
    """Return the finest level that is small enough."""
    for number in range(facts.labels.level, len(facts.labels.multiscale.levels)):
        level = describe_image(facts.labels.location, level=number)
        if np.prod(level.shape, dtype=float) <= _MOST_PX:
            return level
    return None


def _read(level: StoredImage) -> np.ndarray:
    try:
        return np.asarray(level.array()[...])
    except Exception as error:  # each codec raises its own exceptions on damaged bytes
        path = store.join(level.location, level.array_path)
        raise UnreadableChunkError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
