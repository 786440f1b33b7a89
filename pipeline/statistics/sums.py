"""Exact sums of values and of their squares: the same in any order and grouping.

Sums of rounded numbers depend on the order of addition, and lose a small spread beside a large offset. These sums are
rational numbers, so nothing is rounded before the end. The work is done on integers by numpy: integers are counted from
their smallest, reals in units of the last bit of the smallest of them.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

_CHUNK = 1 << 15  # values at a time, few enough to stay in a core's cache
_MOST_BITS = 62  # of whole numbers that reals are turned into
_GUARD_BITS = 64  # of a root beyond those of a float64


@dataclass(frozen=True)
class Sums:
    """Number, sum and sum of squares of values; `a + b` are those of both together.

    >>> both = sum_values(np.array([1.0, 2.0])) + sum_values(np.array([6]))
    >>> both.mean, both.std == math.sqrt(14 / 3)
    (3.0, True)
    """

    count: int = 0
    total: Fraction = Fraction(0)
    squares: Fraction = Fraction(0)

    def __add__(self, other: "Sums") -> "Sums":
        """The sums of two sets of values."""
        return Sums(self.count + other.count, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """The float64 next to the mean."""
        return float(self.total / self.count)

    @property
    def std(self) -> float:
        """Standard deviation of the population, to the last bit of a float64 or nearly so; 0 if all are equal."""
        return _root((self.squares - self.total**2 / self.count) / self.count)


def _root(value: Fraction) -> float:
    """Square root of a rational number of any size.

    >>> _root(Fraction(1, 4)), _root(Fraction(10) ** 300), _root(Fraction(0)), _root(Fraction(1, 10**600))
    (0.5, 1e+150, 0.0, 1e-300)
    """
    if value <= 0:
        return 0.0
    bits = value.numerator.bit_length() - value.denominator.bit_length()
    shift = max(0, _GUARD_BITS - bits // 2)
    return float(Fraction(math.isqrt((value.numerator << 2 * shift) // value.denominator), 1 << shift))


def sum_values(values: np.ndarray) -> Sums:
    """Exact sums of finite values.

    Parameters
    ----------
    values : ndarray
        Integers, truth values or finite reals of up to 64 bits, in any shape.

    Returns
    -------
    Sums
        Nothing is rounded.
    """
    flat = values.ravel()
    parts = (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))
    if values.dtype.kind == "f":
        n_bits = 1 + np.finfo(values.dtype).nmant
        return sum((_sum_reals(part.astype(np.float64), n_bits) for part in parts), Sums())
    return sum((_sum_integers(part, Fraction(1)) for part in parts), Sums())


def _sum_integers(values: np.ndarray, unit: Fraction) -> Sums:
    """Sums of ``values * unit``: counted from the smallest value, so that a large offset costs nothing."""
    low, count = int(values.min()), values.size
    signed = values.astype(np.int64 if values.dtype.kind == "i" else np.uint64, copy=False)
    above = signed.view(np.uint64) - np.uint64(low % (1 << 64))  # modulo 2^64, which the difference never reaches
    total, squares = _sum_powers(above)
    return Sums(count, (total + count * low) * unit, (squares + 2 * low * total + count * low**2) * unit**2)


def _sum_powers(values: np.ndarray) -> tuple[int, int]:
    """Sum and sum of squares of uint64, by limbs so short that no sum of products of two limbs exceeds 64 bits."""
    n_bits = (64 - values.size.bit_length()) // 2
    n_limbs = max(1, -(-int(values.max()).bit_length() // n_bits))
    mask = np.uint64((1 << n_bits) - 1)
    limbs = [(values >> np.uint64(n_bits * place)) & mask for place in range(n_limbs)]
    total = sum(int(limb.sum()) << n_bits * place for place, limb in enumerate(limbs))
    squares = 0
    for i, one in enumerate(limbs):
        squares += int(np.dot(one, one)) << 2 * n_bits * i
        squares += sum(int(np.dot(one, limbs[j])) << n_bits * (i + j) + 1 for j in range(i))
    return total, squares


def _sum_reals(values: np.ndarray, n_bits: int) -> Sums:
    """Sums of float64 with so many significant bits, group by group of sizes that fit whole numbers of 62 bits."""
    sizes = np.abs(values)
    n_zeros = values.size - int(np.count_nonzero(sizes))
    if n_zeros:
        values, sizes = values[sizes > 0], sizes[sizes > 0]
    found = Sums(n_zeros)
    while values.size:
        last_bit, highest = math.frexp(sizes.min())[1] - n_bits, math.frexp(sizes.max())[1]
        is_larger = sizes >= math.ldexp(1, last_bit + _MOST_BITS) if highest - last_bit > _MOST_BITS else None
        group = values if is_larger is None else values[~is_larger]
        found += _sum_integers(np.ldexp(group, -last_bit).astype(np.int64), Fraction(2) ** last_bit)
        if is_larger is None:
            break
        values, sizes = values[is_larger], sizes[is_larger]
    return found
