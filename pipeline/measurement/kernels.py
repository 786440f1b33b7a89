"""Sums over the pixels of each object of one block. Each sum takes one sweep, compiled by numba.

Objects are numbered 1, 2, … within the block (`number_pixels`), so the sum of an object is an array element and needs
no search. An id is looked up only where a run of pixels begins. All counts and coordinates are integers, so sums are
exact and do not depend on the order in which blocks are added.

Arrays of pixels have four axes here (plane, z, y, x). For two-dimensional objects z has one element.
"""

import numpy as np

from segment_slide.unet.compiled import compiled

# Columns of the result of `sum_coordinates`. Each second moment belongs to a pair of axes.
COUNT, FIRST, SECOND = 0, slice(1, 4), slice(4, 10)
PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))  # zz, zy, zx, yy, yx, xx


def find_ids(ids: np.ndarray) -> np.ndarray:
    """Ids above 0 in an array, in rising order. Only the first pixel of each run of equal pixels is sorted.

    >>> find_ids(np.array([[0, 7, 7], [7, 0, 2**40]], np.uint64)).tolist()
    [7, 1099511627776]
    """
    flat = ids.reshape(-1)
    begins = np.empty(flat.shape, np.bool_)
    begins[:1] = True
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    found = np.unique(flat[begins])
    return found[found != 0]


def number_pixels(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Position of each pixel's id in a sorted list, from 1; 0 for background and for ids that are not in the list.

    >>> number_pixels(np.array([0, 7, 9, 2], np.uint32), np.array([2, 7], np.uint32)).tolist()
    [0, 2, 0, 1]
    """
    numbers = np.empty(ids.shape, np.int32)
    _number(ids.reshape(-1), known, numbers.reshape(-1))
    return numbers


@compiled
def _number(ids: np.ndarray, known: np.ndarray, numbers: np.ndarray) -> None:
    last, number = ids.dtype.type(0), 0
    for i in range(len(ids)):
        here = ids[i]
        if here != last:
            last, number = here, 0
            low, high = 0, len(known)
            while low < high:
                middle = (low + high) // 2
                if known[middle] < here:
                    low = middle + 1
                else:
                    high = middle
            if low < len(known) and known[low] == here:
                number = low + 1
        numbers[i] = number


@compiled
def sum_coordinates(
    numbers: np.ndarray, sums: np.ndarray, lows: np.ndarray, highs: np.ndarray, planes: np.ndarray
) -> None:
    """Count, sums and second moments of coordinates, box (highs exclusive), and the plane of each object.

    A run of pixels along x is added in one step, because its sums are polynomials of its end positions.
    """
    n_planes, n_z, n_y, n_x = numbers.shape
    for p in range(n_planes):
        for z in range(n_z):
            for y in range(n_y):
                x = 0
                while x < n_x:
                    number, start = numbers[p, z, y, x], x
                    while x < n_x and numbers[p, z, y, x] == number:
                        x += 1
                    if number == 0:
                        continue
                    k, n = number - 1, x - start
                    sum_x = (start + x - 1) * n // 2
                    sum_xx = ((x - 1) * x * (2 * x - 1) - (start - 1) * start * (2 * start - 1)) // 6
                    sums[k, 0] += n
                    sums[k, 1] += n * z
                    sums[k, 2] += n * y
                    sums[k, 3] += sum_x
                    sums[k, 4] += n * z * z
                    sums[k, 5] += n * z * y
                    sums[k, 6] += z * sum_x
                    sums[k, 7] += n * y * y
                    sums[k, 8] += y * sum_x
                    sums[k, 9] += sum_xx
                    planes[k] = p
                    lows[k, 0], highs[k, 0] = min(lows[k, 0], z), max(highs[k, 0], z + 1)
                    lows[k, 1], highs[k, 1] = min(lows[k, 1], y), max(highs[k, 1], y + 1)
                    lows[k, 2], highs[k, 2] = min(lows[k, 2], start), max(highs[k, 2], x)


@compiled
def mark_borders(numbers: np.ndarray, border: np.ndarray) -> None:
    """Pixels with a side neighbour outside their object. The outermost pixels of the array are not examined."""
    n_planes, n_y, n_x = numbers.shape
    for p in range(n_planes):
        for y in range(1, n_y - 1):
            for x in range(1, n_x - 1):
                here = numbers[p, y, x]
                border[p, y, x] = here != 0 and (
                    numbers[p, y, x - 1] != here
                    or numbers[p, y, x + 1] != here
                    or numbers[p, y - 1, x] != here
                    or numbers[p, y + 1, x] != here
                )


@compiled
def count_corners(numbers: np.ndarray, border: np.ndarray, reach: int, counts: np.ndarray) -> None:
    """Number of each object's border pixels where the border continues straight, diagonally, or one of each.

    These are the classes of scikit-image's `perimeter` (neighborhood 4), after Benkrid & Crookes, with the weights 1,
    sqrt 2 and (1 + sqrt 2) / 2. Pixels nearer than `reach` to the array's edge are context and are not counted.
    """
    n_planes, n_y, n_x = numbers.shape
    for p in range(n_planes):
        for y in range(reach, n_y - reach):
            for x in range(reach, n_x - reach):
                if not border[p, y, x]:
                    continue
                here = numbers[p, y, x]
                beside, diagonal = 0, 0
                for dy in (-1, 0, 1):
                    for dx in (-1, 0, 1):
                        if (dy != 0 or dx != 0) and border[p, y + dy, x + dx] and numbers[p, y + dy, x + dx] == here:
                            if dy == 0 or dx == 0:
                                beside += 1
                            else:
                                diagonal += 1
                if (beside == 2 or beside == 3) and diagonal <= 2:
                    counts[here - 1, 0] += 1
                elif (beside == 0 and diagonal == 2) or (beside == 1 and diagonal == 3):
                    counts[here - 1, 1] += 1
                elif beside == 1 and (diagonal == 1 or diagonal == 2):
                    counts[here - 1, 2] += 1


@compiled
def count_faces(numbers: np.ndarray, reach: int, counts: np.ndarray) -> None:
    """Number of voxel faces between an object and anything else, by the axis normal to the face (z, y, x)."""
    n_planes, n_z, n_y, n_x = numbers.shape
    for p in range(n_planes):
        for z in range(reach, n_z - reach):
            for y in range(reach, n_y - reach):
                for x in range(reach, n_x - reach):
                    here = numbers[p, z, y, x]
                    if here == 0:
                        continue
                    counts[here - 1, 0] += (numbers[p, z - 1, y, x] != here) + (numbers[p, z + 1, y, x] != here)
                    counts[here - 1, 1] += (numbers[p, z, y - 1, x] != here) + (numbers[p, z, y + 1, x] != here)
                    counts[here - 1, 2] += (numbers[p, z, y, x - 1] != here) + (numbers[p, z, y, x + 1] != here)


@compiled
def sum_values(numbers: np.ndarray, values: np.ndarray, sums: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> None:
    """Sum, smallest and largest value of each object; `numbers` and `values` are flat, sums 64 bits wide."""
    i, n = 0, len(numbers)
    while i < n:
        number = numbers[i]
        if number == 0:
            i += 1
            continue
        total, low, high = sums[number - 1], lows[number - 1], highs[number - 1]
        while i < n and numbers[i] == number:
            value = values[i]
            total += value
            low, high = min(low, value), max(high, value)
            i += 1
        sums[number - 1], lows[number - 1], highs[number - 1] = total, low, high


@compiled
def sum_squares(numbers: np.ndarray, values: np.ndarray, means: np.ndarray, squares: np.ndarray) -> None:
    """Sum of squared differences from each object's mean in the block."""
    for i in range(len(numbers)):
        number = numbers[i]
        if number != 0:
            difference = values[i] - means[number - 1]
            squares[number - 1] += difference * difference
