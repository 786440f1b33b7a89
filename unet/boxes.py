"""Boxes: one slice of whole numbers for each axis of an array."""

Box = tuple[slice, ...]


def clip_box(box: Box, shape: tuple[int, ...]) -> Box:
    """The part of a box inside an array; empty if there is none.

    >>> clip_box((slice(-3, 2), slice(7, 9)), (5, 5))
    (slice(0, 2, None), slice(5, 5, None))
    """
    return tuple(
        slice(min(max(part.start, 0), size), min(max(part.stop, 0), size))
        for part, size in zip(box, shape, strict=True)
    )


def widen_box(box: Box, reach_px: int, *, n_planes: int = 0) -> Box:
    """Widen a box by `reach_px` on both sides of each axis, except the first `n_planes` axes.

    >>> widen_box((slice(3, 4), slice(7, 9)), 2, n_planes=1)
    (slice(3, 4, None), slice(5, 11, None))
    """
    return tuple(
        part if axis < n_planes else slice(part.start - reach_px, part.stop + reach_px) for axis, part in enumerate(box)
    )
