"""Which objects are small: smaller than what the network can tell from noise, or than a tenth of the usual object."""

from dataclasses import dataclass

import numpy as np

_SIDE_PX = 3  # a network sees 3 x 3 pixels (3 x 3 x 3) at a time
_USUAL_SHARE = 10  # small objects have below this part of the usual size


@dataclass(frozen=True)
class SmallObjects:
    """How many objects are small.

    Attributes
    ----------
    n_small, n_objects : int
        Number of small objects, and of all objects.
    below_px : int
        Small objects have fewer pixels than this.
    """

    n_small: int
    n_objects: int
    below_px: int

    @property
    def share(self) -> float:
        """Share of small objects."""
        return self.n_small / self.n_objects if self.n_objects else 0.0

    def __str__(self) -> str:
        """For people.

        >>> str(SmallObjects(3, 4, 9))
        '3 of 4 objects (75.0%) are smaller than 9 px'
        """
        found = f"{self.n_small:,} of {self.n_objects:,} objects ({self.share:.1%})"
        return f"{found} are smaller than {self.below_px:,} px"


def find_small(sizes: np.ndarray, counts: np.ndarray, ndim: int) -> SmallObjects:
    """Count the objects that are small, compared with the others.

    An object is small if it has fewer than 3 x 3 pixels (3 x 3 x 3 in volumes), or fewer than a tenth of the median
    size of the objects that have at least that many. Noise does not move this median, however many specks there are.

    Parameters
    ----------
    sizes, counts : ndarray of int, (m,)
        Sizes (px), and number of objects of each; a size may occur more than once.
    ndim : int
        Spatial axes: 2 or 3.

    Examples
    --------
    >>> find_small(np.array([1, 2, 300, 400, 20]), np.array([500, 90, 10, 11, 1]), 2)
    SmallObjects(n_small=591, n_objects=612, below_px=30)
    """
    least = _SIDE_PX**ndim
    order = np.argsort(sizes, kind="stable")
    sizes, counts = np.asarray(sizes)[order].astype(np.int64), np.asarray(counts)[order].astype(np.int64)
    usual = sizes >= least
    below = least
    if counts[usual].sum():
        ends = np.cumsum(counts[usual])
        median = int(sizes[usual][np.searchsorted(ends, (ends[-1] + 1) // 2)])
        below = max(least, -(-median // _USUAL_SHARE))
    return SmallObjects(int(counts[sizes < below].sum()), int(counts.sum()), below)
