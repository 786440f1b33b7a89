"""How the fragments of one object are united, two at a time; the functions that rows of `measurement.sums` name.

Each takes the name of a sum, the sums of all fragments so far (`before`) and those of the fragments of one block
(`part`), objects in the same order; where ``before["count"]`` is 0 there is none so far. Counts, boxes, faces and sums
of coordinates are integers, and exact. Second moments and variances are merged by the formula of Chan, Golub & LeVeque
(1983), each fragment's about its own mean, so neither a place far from the image's origin nor a bright background
costs digits.
"""

import numpy as np

from segment_slide.pipeline.errors import BlockError
from segment_slide.pipeline.storage.work_folder import Arrays


def add_up(name: str, before: Arrays, part: Arrays) -> np.ndarray:
    """The sum of both."""
    return np.asarray(before[name] + part[name])


def take_smaller(name: str, before: Arrays, part: Arrays) -> np.ndarray:
    """The smaller of both."""
    return np.where(_is_new(name, before), part[name], np.minimum(before[name], part[name]))


def take_larger(name: str, before: Arrays, part: Arrays) -> np.ndarray:
    """The larger of both."""
    return np.where(_is_new(name, before), part[name], np.maximum(before[name], part[name]))


def _is_new(name: str, before: Arrays) -> np.ndarray:
    """Objects without a fragment so far, as a column that suits the shape of the sum."""
    return (before["count"] == 0).reshape(-1, *(1,) * (before[name].ndim - 1))


def share_plane(name: str, before: Arrays, part: Arrays) -> np.ndarray:
    """The plane of both.

    Raises
    ------
    BlockError
        If they are two.
    """
    moved = (before["count"] > 0) & (part[name] != before[name]).any(axis=1)
    if moved.any():
        raise BlockError(
            f"object {part['ids'][moved][0]} lies in two planes, {before[name][moved][0].tolist()} and "
            f"{part[name][moved][0].tolist()}: its ids were not made plane by plane"
        )
    return part[name]


def move_first(name: str, before: Arrays, part: Arrays) -> np.ndarray:
    """Sums of coordinates, relative to the box of both."""
    held, added = _relative_to_both(before, part)
    return np.where((before["count"] == 0)[:, None], added, held + added)


def unite_second(name: str, before: Arrays, part: Arrays) -> np.ndarray:
    """Second moments about the mean of both; those of `part` are sums of products, relative to its own box."""
    d, n, old = part["box_min"].shape[1], part["count"], before["count"]
    held, added = _relative_to_both(before, part)
    apart = added / n[:, None] - held / np.maximum(old, 1)[:, None]
    weight = n / (old + n) * old  # 0 where there was nothing
    united = np.empty_like(before[name])
    pairs = [(a, b) for a in range(d) for b in range(a, d)]
    for column, (a, b) in enumerate(pairs):
        own = part[name][:, column] - part["first"][:, a] * (part["first"][:, b] / n)
        united[:, column] = before[name][:, column] + own + weight * apart[:, a] * apart[:, b]
    return united


def _relative_to_both(before: Arrays, part: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Sums of coordinates of both, relative to the box of both."""
    old = before["count"][:, None]
    corner = np.where(old == 0, part["box_min"], np.minimum(before["box_min"], part["box_min"]))
    held = before["first"] + old * (before["box_min"] - corner)
    return held, part["first"] + part["count"][:, None] * (part["box_min"] - corner)


def unite_squares(name: str, before: Arrays, part: Arrays) -> np.ndarray:
    """Squared differences of values, about the mean of both."""
    n, old = part["count"], before["count"]
    apart = part["value_sum"] / n[:, None] - before["value_sum"] / np.maximum(old, 1)[:, None]
    between = (n / (old + n) * old)[:, None] * apart * apart
    return np.asarray(before[name] + part[name] + between)
