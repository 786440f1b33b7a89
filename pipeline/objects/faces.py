"""Which objects of two neighbouring blocks are the same object. Only the blocks' faces are needed.

Blocks that differ along one axis share a face, along two axes an edge, along three a corner. The objects of a block and
of the block at `index + offset` are compared in the faces of both. Two blocks of a plane, with the faces' pixels::

        |. . . . a|b . . . .|
        |. . . . a|b . . . .|      a: face (axis 1, high) of the left block, b: face (axis 1, low) of the right one
"""

import itertools
from collections.abc import Mapping

import numpy as np

from segment_slide.pipeline.blocks.grid import Index
from segment_slide.pipeline.objects.components import find_root, unite
from segment_slide.unet.compiled import compiled

Face = tuple[int, int]  # axis, side: 0 where the axis begins, 1 where it ends
Faces = Mapping[Face, np.ndarray]  # each array has the block's axes without the face's own axis


def touching(faces: Faces, offset: Index) -> np.ndarray:
    """Pixels of a block that touch the block at an offset. The result has the axes along which the offset is 0.

    Parameters
    ----------
    faces : mapping
        The block's outermost pixels.
    offset : tuple of int
        -1, 0 or 1 per axis, not all 0.

    Examples
    --------
    >>> faces = {(0, 1): np.array([1, 2, 3]), (1, 1): np.array([7, 3])}
    >>> touching(faces, (1, 0)).tolist(), touching(faces, (1, 1)).tolist()
    ([1, 2, 3], 3)
    """
    first = next(axis for axis, step in enumerate(offset) if step)
    rest = tuple(slice(None) if step == 0 else (-1 if step > 0 else 0) for step in offset[:first] + offset[first + 1 :])
    return np.asarray(faces[first, int(offset[first] > 0)][rest])


def touching_pairs(one: Faces, other: Faces, offset: Index, connectivity: int) -> np.ndarray:
    """Numbers of objects that are connected across the border of two blocks.

    Parameters
    ----------
    one, other : mapping
        Faces of a block and of the block at `offset` from it. 0 means no object.
    offset : tuple of int
        -1, 0 or 1 per axis.
    connectivity : int
        See `pipeline.objects.components.label_components`.

    Returns
    -------
    ndarray of uint32, (pairs, 2)
        Number in `one`, number in `other`. Each pair occurs once, in ascending order.

    Examples
    --------
    >>> left, right = {(1, 1): np.array([1, 0, 2])}, {(1, 0): np.array([0, 5, 5])}
    >>> touching_pairs(left, right, (0, 1), 1).tolist(), touching_pairs(left, right, (0, 1), 2).tolist()
    ([[2, 5]], [[1, 5], [2, 5]])
    """
    a = touching(one, offset)
    b = touching(other, tuple(-step for step in offset))
    left = connectivity - sum(map(abs, offset))
    found = [np.empty(0, np.uint64)]
    for shift in itertools.product((-1, 0, 1), repeat=a.ndim):
        if sum(map(abs, shift)) > left:
            continue
        near = a[tuple(slice(max(0, -step), size - max(0, step)) for step, size in zip(shift, a.shape, strict=True))]
        far = b[tuple(slice(max(0, step), size - max(0, -step)) for step, size in zip(shift, b.shape, strict=True))]
        both = (near > 0) & (far > 0)
        found.append(near[both].astype(np.uint64) << np.uint64(32) | far[both].astype(np.uint64))
    pairs = np.unique(np.concatenate(found))
    return np.stack([pairs >> np.uint64(32), pairs & np.uint64(0xFFFFFFFF)], axis=1).astype(np.uint32)


def previous_offsets(n_planes_axes: int, n_spatial: int, connectivity: int) -> list[Index]:
    """Offsets of the neighbours that come before a block in raster order and may share objects with it.

    >>> previous_offsets(1, 2, 1), len(previous_offsets(0, 3, 3))
    ([(0, -1, 0), (0, 0, -1)], 13)
    """
    spatial = itertools.product((-1, 0, 1), repeat=n_spatial)
    before = [step for step in spatial if step < (0,) * n_spatial and sum(map(abs, step)) <= connectivity]
    return [(0,) * n_planes_axes + step for step in before]


@compiled
def unite_pairs(parent: np.ndarray, ones: np.ndarray, others: np.ndarray) -> None:
    """Unite nodes pair by pair, in place. The root of a tree is its smallest node."""
    for pair in range(len(ones)):
        unite(parent, ones[pair], others[pair])


@compiled
def flatten(parent: np.ndarray) -> None:
    """Make every node point to its root, in place."""
    for node in range(len(parent)):
        parent[node] = find_root(parent, node)
