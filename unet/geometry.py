"""Where tiles may lie and how much context they need, in integers (no torch).

A U-Net of unpadded convolutions gives the whole image's result for a part of the image only if that
part starts at a multiple of the network's stride and has enough context. This file holds that
arithmetic. It must not know about arrays, devices or stores.

One axis of one tile, ``T`` pixels wide (``h`` halo, ``T`` owned)::

    read    |hhhhhh|TTTTTTTTTTTT|hhhhhh|      T + 2*halo   input of the network
    output      |cc|TTTTTTTTTTTT|cc|          T + 2*crop   what valid convolutions leave
    write          |TTTTTTTTTTTT|             T            what the tile owns
"""

from dataclasses import dataclass

from segment_slide.unet.errors import GeometryError

# Every 3x3 convolution removes one pixel per side of its feature map. Depths 5 and 6 are far outside the paper. Depth 7
# would need 1524 px of context per tile, so it is taken as a typing error.
MAX_DEPTH = 6


def round_up(value_px: int, multiple_px: int) -> int:
    """Smallest multiple of `multiple_px` that is at least `value_px`.

    >>> round_up(1, 16), round_up(32, 16)
    (16, 32)
    """
    return -(-value_px // multiple_px) * multiple_px


@dataclass(frozen=True)
class Locality:
    """How a network treats one spatial axis: the numbers that decide where tiles may lie and what they read.

    Parameters
    ----------
    stride : int
        Start and size of every tile are multiples of this (px).
    halo : int
        Pixels per side that a tile reads beyond what it writes.

    Examples
    --------
    >>> Locality(stride=16, halo=94).read_size(512)
    700
    """

    stride: int
    halo: int

    def round_up(self, size_px: int) -> int:
        """Smallest tile size (px) that is at least `size_px`; used for the rest at the end of the image.

        >>> Locality(stride=16, halo=94).round_up(37)
        48
        """
        return round_up(size_px, self.stride)

    def read_size(self, write_px: int) -> int:
        """Input size (px) that a tile of `write_px` owned pixels needs.

        Raises
        ------
        GeometryError
            If tiles cannot have this size.
        """
        self.check_multiple(write_px, "tile")
        return write_px + 2 * self.halo

    def check_multiple(self, size_px: int, what: str) -> None:
        """Refuse a tile or block size that is not a positive multiple of the stride.

        Raises
        ------
        GeometryError
            With the two nearest sizes that are allowed.
        """
        if size_px > 0 and size_px % self.stride == 0:
            return
        below = max(size_px // self.stride * self.stride, self.stride)
        raise GeometryError(
            f"{what}={size_px} px is not a positive multiple of the network's stride {self.stride}; tiles "
            f"would not line up and labels would depend on the tiling. "
            f"Nearest: {below}, {below + self.stride}."
        )


@dataclass(frozen=True)
class Geometry:
    """The integers that follow from the depth. They are the same for each spatial axis, in 2D and in 3D.

    Parameters
    ----------
    depth : int
        Number of poolings, 1 to 6; the paper has 4 (Ronneberger 2015, Fig. 1).

    Raises
    ------
    GeometryError
        If `depth` is outside 1..6.

    Examples
    --------
    >>> paper = Geometry(depth=4)
    >>> paper.stride, paper.margin, paper.crop, paper.halo
    (16, 92, 2, 94)
    >>> paper.output_size(572)
    388
    """

    depth: int

    def __post_init__(self) -> None:
        if not 1 <= self.depth <= MAX_DEPTH:
            raise GeometryError(f"depth={self.depth}, expected 1 to {MAX_DEPTH}; the paper's network has depth 4.")

    @property
    def stride(self) -> int:
        """Shift (px) of the input that shifts the output equally: one pixel of the coarsest feature map."""
        return 1 << self.depth

    @property
    def margin(self) -> int:
        """Pixels per side that the valid convolutions remove: 92 at depth 4 (572 -> 388)."""
        return 6 * self.stride - 4

    @property
    def crop(self) -> int:
        """Output pixels per side that are dropped so that the context is symmetric.

        Output sizes are 4 (mod stride) and tile sizes are 0 (mod stride). So where the stride does not divide 4, the
        output of a tile of T pixels is T + 4 wide. Cropping the same amount on both sides also keeps flipped tiles
        aligned.
        """
        return 0 if 4 % self.stride == 0 else 2

    @property
    def halo(self) -> int:
        """Pixels per side that a tile reads beyond what it writes: margin + crop (94 at depth 4)."""
        return self.margin + self.crop

    @property
    def locality(self) -> Locality:
        """Stride and halo, the only numbers that the rest of the program needs."""
        return Locality(self.stride, self.halo)

    def is_valid_input_size(self, size_px: int) -> bool:
        """Whether all poolings divide evenly and at least one output pixel is left.

        >>> [n for n in range(180, 240) if Geometry(4).is_valid_input_size(n)]
        [188, 204, 220, 236]
        """
        on_grid = (size_px - 4 * (self.stride - 1)) % self.stride == 0
        return on_grid and size_px > 2 * self.margin

    def output_size(self, size_px: int) -> int:
        """Output size (px) of the network for an input of `size_px` on one axis.

        Raises
        ------
        GeometryError
            If the network cannot run on this size.
        """
        if not self.is_valid_input_size(size_px):
            below = size_px - (size_px + 4) % self.stride
            smallest = round_up(2 * self.margin + 1 + 4, self.stride) - 4
            raise GeometryError(
                f"input size={size_px} px is not valid at depth {self.depth}: poolings would cut off a pixel. "
                f"Nearest: {max(below, smallest)}, {max(below, smallest) + self.stride}."
            )
        return size_px - 2 * self.margin

    def read_size(self, write_px: int) -> int:
        """Input size (px) that a tile of `write_px` owned pixels needs.

        >>> Geometry(4).read_size(512)
        700
        """
        return self.locality.read_size(write_px)

    def check_multiple(self, size_px: int, what: str) -> None:
        """Refuse a tile or block size that is not a positive multiple of the stride.

        Raises
        ------
        GeometryError
            With the two nearest sizes that are allowed.
        """
        self.locality.check_multiple(size_px, what)
