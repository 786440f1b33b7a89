"""Unite the fragments of one object, two at a time. The rows of `measurement.sums` refer to these functions.

Each function takes the name of a sum, the sums of all fragments so far (`before`) and those of the fragments of one
block (`part`), with objects in the same order. A ``before["count"]`` of 0 means that there is no fragment so far.
Counts, boxes, faces and sums of coordinates are integers, and exact. Second moments and variances are merged by the
formula of Chan, Golub & LeVeque (1983), each fragment's about its own mean. So precision is not lost far from the
image's origin or on a bright background.
"""

import numpy as np

from segment_slide.pipeline.errors import BlockError
from segment_slide.pipeline.storage.work_folder import Arrays


def add_up(name: str, before: Arrays, part: Arrays) -> np.ndarray:
    """Sum of both values."""
    return np.asarray(before[name] + part[name])


def take_smaller(name: str, before: Arrays, part: Arrays) -> np.ndarray:
    """The smaller of both values."""
    return np.where(_is_new(name, before), part[name], np.minimum(before[name], part[name]))


def take_larger(name: str, before: Arrays, part: Arrays) -> np.ndarray:
    """The larger of both values."""
    return np.where(_is_new(name, before), part[name], np.maximum(before[name], part[name]))


def _is_new(name: str, before: Arrays) -> np.ndarray:
    """Which objects have no fragment so far, shaped to broadcast against the sum."""
    return (before["count"] == 0).reshape(-1, *(1,) * (before[name].ndim - 1))


def share_plane(name: str, before: Arrays, part: Arrays) -> np.ndarray:
    """The common plane of both fragments.

    Raises
    ------
    BlockError
        If they lie in different planes.
    """
    moved = (before["count"] > 0) & (part[name] != before[name]).any(axis=1)
    if moved.any():
        raise BlockError(
            f"object {part['ids'][moved][0]} lies in two planes, {before[name][moved][0].tolist()} and "
            f"{part[name][moved][0].tolist()}: its ids were not made plane by plane"
        )
    return part[name]


def move_first(name: str, before: Arrays, part: Arrays) -> np.ndarray:
    """Sums of coordinates of both fragments together, relative to their common box."""
    held, added = _relative_to_both(before, part)
    return np.where((before["count"] == 0)[:, None], added, held + added)


def unite_second(name: str, before: Arrays, part: Arrays) -> np.ndarray:
    """Second moments about the common mean. Those of `part` are sums of products, relative to its own box."""
    d, n, old = part["box_min"].shape[1], part["count"], before["count"]
    held, added = _relative_to_both(before, part)
    apart = added / n[:, None] - held / np.maximum(old, 1)[:, None]
    weight = n / (old + n) * old  # 0 if there was no fragment
    united = np.empty_like(before[name])
    pairs = [(a, b) for a in range(d) for b in range(a, d)]
    for column, (a, b) in enumerate(pairs):
        own = part[name][:, column] - part["first"][:, a] * (part["first"][:, b] / n)
        united[:, column] = before[name][:, column] + own + weight * apart[:, a] * apart[:, b]
    return united


def _relative_to_both(before: Arrays, part: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Sums of coordinates of each of the two fragments, relative to their common box."""
    old = before["count"][:, None]
    corner = np.where(old == 0, part["box_min"], np.minimum(before["box_min"], part["box_min"]))
    held = before["first"] + old * (before["box_min"] - corner)
    return held, part["first"] + part["count"][:, None] * (part["box_min"] - corner)


def unite_squares(name: str, before: Arrays, part: Arrays) -> np.ndarray:
    """Sum of squared differences of values from the common mean."""
    n, old = part["count"], before["count"]
    apart = part["value_sum"] / n[:, None] - before["value_sum"] / np.maximum(old, 1)[:, None]
    between = (n / (old + n) * old)[:, None] * apart * apart
    return np.asarray(before[name] + part[name] + between)
