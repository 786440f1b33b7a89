"""Loops of the watershed that splits objects (`objects.split`), over flattened arrays with a border of background."""

import math
from heapq import heappop, heappush

import numpy as np

from segment_slide.unet.compiled import compiled


@compiled
def _root(parents: list[int], i: int) -> int:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@compiled
def grow_basins(
    order: np.ndarray,
    classes: np.ndarray,
    squares: np.ndarray,
    labels: np.ndarray,
    strides: np.ndarray,
    depth: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lower the level from the highest maximum. Where two basins meet, compare the lower basin's peak with the level.

    Never compares two values of height minus depth, as reconstruction by dilation does, because subtraction rounds.
    Writes basins into `labels`; returns the fields of `_Basins`.
    """
    whole, same, top = [0], [0], [0]  # top: the object's highest basin
    peak, is_core = [np.float32(0)], [False]
    for key in order:
        p = np.int64(key & np.uint64(0xFFFFFFFF))
        height = math.sqrt(np.float64(squares[p]))
        for stride in strides:
            q = p + stride
            if labels[q] == 0 or classes[q] != classes[p]:
                continue
            if labels[p] == 0:
                labels[p] = labels[q]
                continue
            a, b = _root(whole, int(labels[p])), _root(whole, int(labels[q]))
            if a == b:
                continue
            if peak[top[a]] < peak[top[b]]:
                a, b = b, a
            lower = top[b]
            if not math.sqrt(np.float64(peak[lower])) - height >= depth:  # infinity minus infinity is no neck
                if peak[lower] == peak[top[a]]:
                    same[lower] = top[a]
                else:
                    is_core[lower] = False
            whole[b] = a
        if labels[p] == 0:
            labels[p] = len(whole)
            for basins in (whole, same, top):
                basins.append(len(basins))
            peak.append(squares[p])
            is_core.append(depth <= height < np.inf)
    for i in range(len(whole)):
        whole[i], same[i] = _root(whole, i), _root(same, i)
    return np.array(whole), np.array(same), np.array(peak), np.array(is_core)


@compiled
def marker_pixels(
    squares: np.ndarray, labels: np.ndarray, whole: np.ndarray, same: np.ndarray, peak: np.ndarray, is_core: np.ndarray
) -> np.ndarray:
    """Pixels at the height of their basin's maximum, for basins that are cores."""
    found = []
    for p in range(labels.size):
        basin = labels[p]
        if basin != 0 and squares[p] == peak[basin] and is_core[same[basin]]:
            found.append(p)
    return np.array(found, np.int64)


@compiled
def flood(
    classes: np.ndarray,
    squares: np.ndarray,
    labels: np.ndarray,
    strides: np.ndarray,
    names: np.ndarray,
    pixels: np.ndarray,
    owners: np.ndarray,
) -> None:
    """Replace basins by their names, in place. Basins without a name (0) are flooded from the markers."""
    for p in range(labels.size):
        labels[p] = names[labels[p]]
    heap = [(-np.inf, np.int64(i), pixels[i]) for i in range(pixels.size) if labels[pixels[i]] == 0]
    for i in range(pixels.size):
        labels[pixels[i]] = owners[i]
    age = pixels.size
    while len(heap) > 0:
        level, _, p = heappop(heap)
        for stride in strides:
            q = p + stride
            if labels[q] == 0 and classes[q] == classes[p]:
                labels[q] = labels[p]
                heappush(heap, (max(level, -np.float64(squares[q])), np.int64(age), q))
                age += 1


@compiled
def number(labels: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Number pieces from 1 in the order of their first pixels, in place. Return their old names and first pixels."""
    numbers, names, first = np.zeros(n, np.uint32), [], []
    for p in range(labels.size):
        name = labels[p]
        if name != 0:
            if numbers[name] == 0:
                names.append(np.int64(name))
                first.append(p)
                numbers[name] = len(names)
            labels[p] = numbers[name]
    return np.array(names, np.int64), np.array(first, np.int64)
