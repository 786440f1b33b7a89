"""Small objects: counted as by a list of all sizes, whatever noise there is."""

import numpy as np
import pytest

from segment_slide.pipeline.statistics.object_sizes import find_small


def by_hand(sizes: list[int], ndim: int) -> tuple[int, int]:
    """Oracle: from the list of all sizes."""
    usual = sorted(size for size in sizes if size >= 3**ndim)
    tenth = -(-usual[(len(usual) - 1) // 2] // 10) if usual else 0
    below = max(3**ndim, tenth)
    return sum(size < below for size in sizes), below


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("n_specks", [0, 7, 5000])
def test_small_objects_are_those_of_the_list_of_all_sizes(ndim, n_specks):
    random = np.random.default_rng(n_specks)
    sizes = [*random.integers(1, 5, n_specks), *random.integers(200, 900, 31), 30, 8, 9, 26, 27]
    random.shuffle(sizes)
    values, counts = np.unique(sizes, return_counts=True)
    found = find_small(values, counts, ndim)
    assert (found.n_small, found.below_px) == by_hand(sizes, ndim)
    assert found.n_objects == len(sizes)
    apart = find_small(np.array(sizes), np.ones(len(sizes), int), ndim)  # not gathered by size
    assert apart == found
    assert n_specks <= found.n_small <= n_specks + 5  # specks move the threshold only if they are most of the objects


def test_images_without_objects_or_with_specks_alone_have_a_threshold_too():
    none = np.zeros(0, int)
    assert (find_small(none, none, 2).n_small, find_small(none, none, 2).share) == (0, 0.0)
    assert find_small(np.array([1, 2]), np.array([5, 5]), 2).n_small == 10
    assert find_small(np.array([500]), np.array([3]), 2).n_small == 0
