"""What a measurement found, in integers (no numpy, no torch).

One axis of one tile, ``T`` pixels wide, of a network that cuts ``c`` pixels per side and gives half the size::

    read    |hhhhhh|TTTTTTTTTTTT|hhhhhh|      T + 2*halo                          a size that runs
    output      |..|oooooo|..|                (T + 2*halo - 2*crop) * 1/2         what the network gives
    write          |oooooo|                   T * 1/2                             what the tile owns
"""

from dataclasses import dataclass
from fractions import Fraction

from segment_slide.unet.errors import GeometryError
from segment_slide.unet.geometry import round_up


@dataclass(frozen=True)
class AxisLocality:
    """How a network treats one spatial axis. All lengths are pixels of the input.

    Attributes
    ----------
    stride : int
        Smallest shift of the input that shifts the output and changes nothing else.
    before, after : int
        Reach: how far before and after a pixel its context goes, for tiles that start at multiples of the stride.
    halo : int
        What a tile reads per side: the smallest number that is at least the reach and gives sizes that run.
    step : int
        Tiles are multiples of it: a multiple of the stride for which tile + 2 * halo is a size that runs.
    smallest : int
        Smallest size that runs; so do all sizes `smallest` + k * `step`.
    crop : int
        What the network itself cuts off per side.
    scale : (int, int)
        Size of the output per size of the input: numerator and denominator.
    """

    stride: int
    before: int
    after: int
    halo: int
    step: int
    smallest: int
    crop: int
    scale: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        above_0 = (self.stride, self.step, self.smallest, *self.scale)
        is_sound = min(above_0) > 0 and min(self.before, self.after, self.crop) >= 0 and self.step % self.stride == 0
        if not is_sound or self.halo < self.crop:
            raise GeometryError(f"{self}: these numbers contradict each other.")

    @property
    def reach(self) -> int:
        """The larger of the two."""
        return max(self.before, self.after)

    @property
    def ratio(self) -> Fraction:
        """Size of the output per size of the input."""
        return Fraction(*self.scale)

    @property
    def half_step(self) -> int:
        """A halo may be larger by multiples of this: both sides together then grow by whole steps of the sizes.

        A network that cuts nothing keeps whole steps, so that its grid begins where the image does.
        """
        is_half = self.crop > 0 and self.step % 2 == 0 and (self.ratio * (self.step // 2)).denominator == 1
        return self.step // 2 if is_half else self.step

    def round_up(self, size_px: int) -> int:
        """Smallest size that runs and is at least this."""
        return self.smallest + round_up(max(0, size_px - self.smallest), self.step)

    def kept(self, owned_px: int) -> slice:
        """Pixels of the output that belong to the first `owned_px` pixels of a tile.

        >>> AxisLocality(stride=2, before=8, after=8, halo=8, step=2, smallest=18, crop=0, scale=(1, 2)).kept(32)
        slice(4, 20, None)
        """
        start = (self.halo - self.crop) * self.ratio
        return slice(int(start), int(start + round_up(owned_px, self.ratio.denominator) * self.ratio))


@dataclass(frozen=True)
class MeasuredLocality:
    """How a network treats an image: what `locality.measure` found.

    Attributes
    ----------
    axes : tuple of AxisLocality
        Each spatial axis: (y, x) or (z, y, x).
    in_channels, out_channels : int
        Channels of input and output.
    is_bit_equal : bool
        Whether tiles gave the bits of the whole image in the self-test; if not, they differed by rounding alone.
    """

    axes: tuple[AxisLocality, ...]
    in_channels: int
    out_channels: int
    is_bit_equal: bool = True
