"""Count the network's parameters, operations and memory without building it (no torch).

The plan needs the bytes and operations of a slide before torch is imported. The counts here follow the same steps as
`unet.model.UNet.forward`; tests check that the two agree.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from segment_slide.unet.errors import GeometryError
from segment_slide.unet.geometry import Geometry, Locality
from segment_slide.unet.network import Output

MAX_CLASSES = 255  # labels are uint8
_SCORE_BYTES = 4  # scores are always float32, also if features are bfloat16


@dataclass(frozen=True)
class Architecture:
    """A U-Net as in Ronneberger 2015, Sec. 2, Fig. 1; the defaults are the paper's.

    Parameters
    ----------
    in_channels : int
        Channels of the input image; the paper's data have one.
    n_classes : int
        Classes of the output, 2 to 255, class 0 is background.
    base_channels : int
        Feature channels of the first level, doubled at each pooling (64 in the paper).
    depth : int
        Number of poolings (4 in the paper).
    ndim : int
        2 for planes (y, x), 3 for volumes (z, y, x).
    dropout : float
        Probability of a zeroed feature "at the end of the contracting path" (Sec. 3.1); the authors'
        release uses 0.5 on the two lowest levels. Active in training only.

    Examples
    --------
    >>> paper = Architecture()
    >>> paper.n_parameters, paper.n_convolutions
    (31030658, 23)
    """

    in_channels: int = 1
    n_classes: int = 2
    base_channels: int = 64
    depth: int = 4
    ndim: int = 2
    dropout: float = 0.5

    def __post_init__(self) -> None:
        for name in ("in_channels", "n_classes", "base_channels", "depth", "ndim"):
            if type(getattr(self, name)) is not int:  # a checkpoint's header may hold 2.0 or true
                raise GeometryError(f"{name}={getattr(self, name)!r}, expected a whole number.")
        Geometry(self.depth)
        if self.ndim not in (2, 3):
            raise GeometryError(f"ndim={self.ndim}, expected 2 (planes) or 3 (volumes).")
        if not 2 <= self.n_classes <= MAX_CLASSES:
            raise GeometryError(f"n_classes={self.n_classes}, expected 2 to {MAX_CLASSES} (labels are uint8).")
        if self.in_channels < 1 or self.base_channels < 1:
            raise GeometryError(
                f"in_channels={self.in_channels}, base_channels={self.base_channels}: expected at least 1."
            )
        if not 0 <= self.dropout < 1:
            raise GeometryError(f"dropout={self.dropout}, expected 0 <= p < 1.")

    @property
    def geometry(self) -> Geometry:
        """Stride, margin and halo of this network."""
        return Geometry(self.depth)

    @property
    def axes(self) -> tuple[Locality, ...]:
        """Stride and halo of each spatial axis, all equal."""
        return (self.geometry.locality,) * self.ndim

    @property
    def outputs(self) -> tuple[Output, ...]:
        """One head: the class scores."""
        return (Output("classes", "scores", self.n_classes),)

    @property
    def summary(self) -> str:
        """The kind of network in a few words."""
        return f"depth {self.depth}"

    def channels(self, level: int) -> int:
        """Feature channels of a level, 0 at full resolution."""
        return self.base_channels << level

    @property
    def n_convolutions(self) -> int:
        """Convolutions, up-convolutions included, as the paper counts them (23 at depth 4)."""
        return 2 * (self.depth + 1) + 3 * self.depth + 1

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases."""
        return sum(fan_in * out + out for fan_in, out in self._layers())

    def _layers(self) -> Iterator[tuple[int, int]]:
        """(weights per output channel, output channels) of each convolution."""
        taps, up_taps = 3**self.ndim, 2**self.ndim
        for level in range(self.depth + 1):
            width = self.channels(level)
            before = self.in_channels if level == 0 else self.channels(level - 1)
            yield before * taps, width
            yield width * taps, width
        for level in reversed(range(self.depth)):
            width = self.channels(level)
            yield 2 * width * up_taps, width
            yield 2 * width * taps, width
            yield width * taps, width
        yield self.base_channels, self.n_classes

    def forward_flops(self, tile_px: tuple[int, ...]) -> int:
        """Floating-point operations (2 per multiply-add) of one forward pass for a tile.

        >>> round(Architecture().forward_flops((384, 384)) / 1e9, 1)  # 572 x 572 in
        300.9
        """
        taps, up_taps = 3**self.ndim, 2**self.ndim
        sizes = [self.geometry.read_size(size) for size in tile_px]
        total = 0

        def convolve(taps: int, channels_in: int, channels_out: int) -> int:
            return 2 * taps * channels_in * channels_out * math.prod(sizes)

        for level in range(self.depth + 1):
            width = self.channels(level)
            before = self.in_channels if level == 0 else self.channels(level - 1)
            for channels_in in (before, width):
                sizes = [size - 2 for size in sizes]
                total += convolve(taps, channels_in, width)
            if level < self.depth:
                sizes = [size // 2 for size in sizes]
        for level in reversed(range(self.depth)):
            width = self.channels(level)
            total += convolve(up_taps, 2 * width, width)  # each input pixel feeds 2^ndim outputs
            sizes = [2 * size for size in sizes]
            for channels_in in (2 * width, width):
                sizes = [size - 2 for size in sizes]
                total += convolve(taps, channels_in, width)
        return total + convolve(1, self.base_channels, self.n_classes)

    def activation_bytes(self, tile_px: tuple[int, ...], itemsize: int) -> int:
        """Peak bytes of the feature maps that are alive at the same time in a forward pass.

        Parameters
        ----------
        tile_px : tuple of int
            Owned pixels of the tile, one per spatial axis.
        itemsize : int
            Bytes of one feature: 4 for float32, 2 for bfloat16.

        Returns
        -------
        int
            Peak of the live feature maps, input and logits included. These are exactly the tensors that
            `unet.model.UNet.forward` holds. Scratch memory of the convolution library is not included.
        """
        sizes = [self.geometry.read_size(size) for size in tile_px]
        image = self.in_channels * math.prod(sizes)  # the caller holds it until the end
        skips: list[int] = []
        peak = 0

        def allocate(*alive: int) -> None:
            nonlocal peak
            peak = max(peak, image + sum(skips) + sum(alive))

        def double_convolution(width: int, entering: int) -> int:
            nonlocal sizes
            first, second = ([size - lost for size in sizes] for lost in (2, 4))
            produced = width * math.prod(second)
            allocate(entering, width * math.prod(first), produced)  # the caller holds the entering features
            sizes = second
            return produced

        current = 0  # features that are neither the image nor a skip
        for level in range(self.depth + 1):
            current = double_convolution(self.channels(level), current)
            if level < self.depth:
                skips.append(current)
                sizes = [size // 2 for size in sizes]
                current = self.channels(level) * math.prod(sizes)
                allocate(current)
        for level in reversed(range(self.depth)):
            sizes = [2 * size for size in sizes]
            upsampled = self.channels(level) * math.prod(sizes)
            allocate(current, upsampled)
            allocate(upsampled, 2 * upsampled)  # the concatenation; the skip is freed after it
            skips.pop()
            current = double_convolution(self.channels(level), 2 * upsampled)
        scores = self.n_classes * math.prod(sizes)
        if itemsize == _SCORE_BYTES:
            allocate(current, scores)
            return peak * itemsize
        # narrower features are converted first, and scores are float32: see UNet.forward
        return max(peak * itemsize, (image + current) * itemsize + (current + scores) * _SCORE_BYTES)
