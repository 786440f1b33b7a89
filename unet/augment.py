"""Deformations of a training sample: one displacement field moves image, classes and weights together.

Ronneberger 2015, Sec. 3.1: "smooth deformations using random displacement vectors on a coarse 3 by 3 grid", Gaussian
with 10 px standard deviation, per pixel by bicubic interpolation. Shift, rotation and grey-value variation are added.

The control points span the pixels that a sample reads, corners included. Here are 3 along an axis of n px::

    |o-----------------o-----------------o|      at pixels 0, (n - 1)/2 and n - 1
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from segment_slide.unet.augment_settings import AugmentSettings
from segment_slide.unet.resample import place_pixels


@dataclass(frozen=True)
class GreyCurve:
    """A rising curve for normalised intensities: ``gain * (x + bend * (sqrt(1 + x^2) - 1)) + offset``.

    Parameters
    ----------
    gain : float
        Contrast; above 0.
    offset : float
        Brightness, in normalised units.
    bend : float
        Between -1 and 1. It acts like a gamma, but for intensities of both signs: dark ones are stretched and bright
        ones compressed, or the other way round. 0 stays 0.

    Examples
    --------
    >>> GreyCurve(2.0, 0.5, 0.0).apply(np.array([-1, 0, 1], np.float32)).tolist()
    [-1.5, 0.5, 2.5]
    """

    gain: float = 1.0
    offset: float = 0.0
    bend: float = 0.0

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Apply the curve to each value; float32 in, float32 out."""
        bent = np.sqrt(np.square(values) + np.float32(1))
        bent -= np.float32(1)
        bent *= np.float32(self.gain * self.bend)
        bent += values * np.float32(self.gain)
        bent += np.float32(self.offset)
        return bent


@dataclass(frozen=True, eq=False)
class Deformation:
    """Everything that is random in one sample, except its position in the image.

    Parameters
    ----------
    displacements : ndarray of float64, (ndim, *grid)
        Displacement (px) at each control point; the first axis holds the components.
    matrix : ndarray of float64, (ndim, ndim)
        Rotation and flips: maps a direction in the sample to one in the image.
    curves : tuple of GreyCurve
        One per channel.
    """

    displacements: np.ndarray
    matrix: np.ndarray
    curves: tuple[GreyCurve, ...]

    def coordinates(self, size_px: tuple[int, ...]) -> np.ndarray:
        """Position in the image of each pixel of a sample, relative to the sample's middle.

        Parameters
        ----------
        size_px : tuple of int
            Size that the sample reads, per spatial axis.

        Returns
        -------
        ndarray of float32, (ndim, *size_px)
            Positions in pixels. If a size is even, the middle lies between two pixels.

        Examples
        --------
        >>> still = Deformation(np.zeros((2, 3, 3)), np.array([[1, 0], [0, -1]]), ())
        >>> still.coordinates((1, 4)).tolist()
        [[[0.0, 0.0, 0.0, 0.0]], [[1.5, 0.5, -0.5, -1.5]]]
        """
        missing = 3 - len(size_px)  # a plane is treated as a volume of one layer
        vectors = np.zeros((3, *(1,) * missing, *self.displacements.shape[1:]))
        vectors[missing:] = self.displacements.reshape(len(size_px), *vectors.shape[1:])
        matrix = np.eye(3)
        matrix[missing:, missing:] = self.matrix
        shares = [np.ones((1, 1))] * missing
        shares += [control_shares(size, n) for size, n in zip(size_px, self.displacements.shape[1:], strict=True)]
        out = np.empty((3, *(1,) * missing, *size_px), np.float32)
        place_pixels(matrix, vectors, shares[0], shares[1], shares[2], out)
        return out[missing:].reshape(len(size_px), *size_px)

    def vary_grey(self, image: np.ndarray) -> np.ndarray:
        """Apply each channel's curve to intensities, (c, *spatial) of float32."""
        if all(curve == GreyCurve() for curve in self.curves):
            return image
        return np.stack([curve.apply(channel) for curve, channel in zip(self.curves, image, strict=True)])


def draw_deformation(random: np.random.Generator, settings: AugmentSettings, ndim: int, n_channels: int) -> Deformation:
    """Draw a deformation. The generator is advanced equally far for all strengths.

    Parameters
    ----------
    random : Generator
        Random numbers; it is advanced.
    settings : AugmentSettings
        Strengths.
    ndim : int
        2 or 3.
    n_channels : int
        Channels of the image; each has its own grey-value curve.

    Returns
    -------
    Deformation
        A pure function of the generator's state and the settings.
    """
    vectors = random.standard_normal((ndim, *(settings.elastic_grid,) * ndim))
    vectors *= np.reshape(settings.stds_px(ndim), (-1, *(1,) * ndim))
    turn = random.random()
    matrix = np.eye(ndim)
    matrix[-2:, -2:] = _rotation(settings.rotation, turn)
    signs = np.where(random.random(ndim) < 0.5, -1.0, 1.0)
    if settings.flip:
        matrix *= signs
    curves = tuple(
        GreyCurve(math.exp(settings.grey * gain), settings.grey * offset, settings.grey * bend)
        for gain, offset, bend in random.uniform(-1, 1, (n_channels, 3)).tolist()
    )
    return Deformation(vectors, matrix, curves)


def _rotation(kind: str, turn: float) -> np.ndarray:
    """Matrix of a rotation by `turn` times the full circle; quarter turns are exact, without rounding."""
    if kind == "any":
        cosine, sine = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    else:
        quarter = int(4 * turn) if kind == "quarter" else 0
        cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter]
    return np.array([[cosine, -sine], [sine, cosine]], np.float64)


@functools.lru_cache(maxsize=64)
def control_shares(size_px: int, n_points: int) -> np.ndarray:
    """Share of each control point in the displacement of each pixel along one axis, by cubic spline.

    The spline goes through the control points and has slope 0 at both ends (like an image mirrored there). The 2D or 3D
    field is the product over the axes.

    Parameters
    ----------
    size_px : int
        Number of pixels of the axis.
    n_points : int
        Number of control points; the first lies at pixel 0, the last at ``size_px - 1``.

    Returns
    -------
    ndarray of float64, (size_px, n_points), read-only
        Rows sum to 1.

    Examples
    --------
    >>> control_shares(5, 3).round(4).tolist()[:3]
    [[1.0, 0.0, 0.0], [0.5938, 0.5, -0.0938], [0.0, 1.0, 0.0]]
    """
    from scipy.interpolate import CubicSpline

    if size_px == 1:  # all control points coincide
        return np.full((1, n_points), 1 / n_points)
    knots = np.linspace(0, size_px - 1, n_points)
    shares = CubicSpline(knots, np.eye(n_points), bc_type="clamped")(np.arange(size_px))
    shares.flags.writeable = False
    return shares
