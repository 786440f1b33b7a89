"""Run the network on one array: the array with its halo goes in, class labels or probabilities come out.

The array is cut into tiles that start at multiples of the stride. So the result equals that of the network on the whole
array. This file must not know where the array comes from: stores, blocks and workers belong to `pipeline`.
"""

import itertools
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segment_slide.unet.device import (
    CHANNELS_LAST,
    DTYPES,
    resolve_device,
    resolve_precision,
    use_exact_float32,
    use_one_core,
)
from segment_slide.unet.errors import GeometryError, ScoresError
from segment_slide.unet.network import InferenceSettings, Network
from segment_slide.unet.scaling import scale_exactly

log = logging.getLogger(__name__)

TTA_MODES = ("none", "flips")

# Normalised intensities lie near 0 to 1. Beyond this, scores may overflow although the weights are sound.
_USUAL_INPUT = 1e4

# Error texts of torch and oneDNN when memory ran out on the CPU; CUDA has an exception of its own.
_OUT_OF_MEMORY_TEXTS = (
    "DefaultCPUAllocator",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "could not create a",
    "could not execute a",
    "Broken promise",  # oneDNN, for a layer whose preparation ran out of memory in another thread
)


@dataclass(frozen=True)
class Prediction:
    """The network's result for one region.

    Attributes
    ----------
    labels : ndarray of uint8, spatial
        Class with the highest score.
    probabilities : ndarray of uint8 or float32, (n_classes, *spatial), or None
        Softmax of the scores; uint8 is 255 * probability, rounded.
    """

    labels: np.ndarray
    probabilities: np.ndarray | None


class Predictor:
    """A network on a device, ready to label arrays. Several threads may call it.

    Parameters
    ----------
    network : Network
        Network with weights. It is prepared for the device and precision; a `UNet` is changed in place.
    settings : InferenceSettings
        Normalisation, tile, device, precision, flips, number of passes at a time.

    Raises
    ------
    GeometryError
        If a tile is not a multiple of the stride.
    DeviceError
        If the device or precision does not exist here.
    """

    def __init__(self, network: Network, settings: InferenceSettings) -> None:
        self.description = network.description
        self.device = resolve_device(settings.device)
        self.precision = resolve_precision(settings.precision, self.device)
        self.tile_px, self._axes = settings.tile_px, self.description.axes
        if len(self.tile_px) != len(self._axes):
            raise GeometryError(f"tile_px={self.tile_px}, expected {len(self._axes)} sizes.")
        for axis, size in zip(self._axes, self.tile_px, strict=True):
            axis.check_multiple(size, "tile")
        if settings.tta not in TTA_MODES:
            raise GeometryError(f"tta={settings.tta!r}, expected one of {TTA_MODES}.")
        self._flips = _all_flips(len(self._axes)) if settings.tta == "flips" else [()]
        offset, scale, channels = settings.offset, settings.scale, self.description.in_channels
        if len(offset) != channels or len(scale) != channels:
            raise GeometryError(f"offset={offset}, scale={scale}: expected {channels} values each, one per channel.")
        self._is_exact, self._constants = settings.is_exact, (offset, scale)
        self._network = network.load(self.device, self.precision)
        shape = (1, channels, *[1] * len(self._axes))
        self._offset = torch.tensor(offset, dtype=torch.float32, device=self.device).reshape(shape)
        self._scale = torch.tensor(scale, dtype=torch.float32, device=self.device).reshape(shape)
        workers = 1 if self.device.type == "cuda" else max(1, settings.concurrency)
        hold_still = {"cpu": use_one_core, "cuda": use_exact_float32}[self.device.type]
        self._pool = ThreadPoolExecutor(workers, "forward", initializer=hold_still)
        self._warned = threading.Event()

    def predict(self, image: np.ndarray, probabilities: str | None = None) -> Prediction:
        """Label the inner part of an array, without its halo.

        Parameters
        ----------
        image : ndarray, (c, *spatial), any real dtype
            Intensities with `halo` pixels of context on every side. The inner part must start on the tile
            grid and be a multiple of the stride on each axis.
        probabilities : {None, "uint8", "float32"}
            Also return class probabilities, in this dtype.

        Returns
        -------
        Prediction
            Each spatial axis is 2 * halo shorter than the input's.

        Raises
        ------
        GeometryError
            If the array has the wrong channels, or an inner size that is not a multiple of the stride.
        ScoresError
            If a score is NaN or infinite.
        ValueError
            If `probabilities` is another dtype.
        """
        if probabilities not in (None, "uint8", "float32"):
            raise ValueError(f"probabilities={probabilities!r}, expected None, 'uint8' or 'float32'.")
        ndim, channels = len(self._axes), self.description.in_channels
        if image.ndim != ndim + 1 or image.shape[0] != channels:
            raise GeometryError(f"image shape={image.shape}, expected ({channels}, ...) and {ndim} spatial axes.")
        inner = tuple(size - 2 * axis.halo for axis, size in zip(self._axes, image.shape[1:], strict=True))
        for axis, size in zip(self._axes, inner, strict=True):
            axis.check_multiple(size, "inner part of the array")
        labels = np.empty(inner, np.uint8)
        scores = np.empty((self.description.outputs[0].n_channels, *inner), probabilities) if probabilities else None
        boxes = list(_tiles(inner, self.tile_px))
        runs = [self._pool.submit(self._predict_tile, image, box, labels, scores) for box in boxes]
        try:
            for run in runs:
                run.result()
        finally:
            for run in runs:
                run.cancel()
        return Prediction(labels, scores)

    def _predict_tile(
        self, image: np.ndarray, box: tuple[slice, ...], labels: np.ndarray, scores: np.ndarray | None
    ) -> None:
        """Fill `labels` and `scores` inside `box`. If memory runs out, do it in two halves."""
        try:
            tile_labels, tile_scores = self._forward(image, box, scores)
        except (RuntimeError, MemoryError) as error:
            halves = self._halves(box)
            if not halves or not _is_out_of_memory(error):
                raise
        else:
            labels[box] = tile_labels
            if scores is not None and tile_scores is not None:
                scores[(slice(None), *box)] = tile_scores
            return
        if not self._warned.is_set():
            self._warned.set()
            log.warning("out of memory on %s with tile %s: continuing with half tiles", self.device, self.tile_px)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        for half in halves:
            self._predict_tile(image, half, labels, scores)

    @torch.inference_mode()
    def _forward(
        self, image: np.ndarray, box: tuple[slice, ...], scores: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Compute labels of one tile and, if `scores` is given, probabilities in its dtype."""
        read_box = tuple(
            slice(owned.start, owned.stop + 2 * axis.halo) for axis, owned in zip(self._axes, box, strict=True)
        )
        tensor = self._to_device(image[(slice(None), *read_box)])
        logits = self._logits(tensor)
        _expect_finite(logits, tensor)
        labels = logits.argmax(dim=1)[0].to(torch.uint8).cpu().numpy()
        if scores is None:
            return labels, None
        probabilities = logits.softmax(dim=1)[0]
        if scores.dtype == np.uint8:
            probabilities = (probabilities * 255).round_().to(torch.uint8)
        return labels, probabilities.cpu().numpy()

    def _to_device(self, tile: np.ndarray) -> Tensor:
        """Normalised input (1, c, *spatial) on the device. uint8 is converted there, because fewer bytes are copied."""
        if self._is_exact:
            tensor = torch.from_numpy(scale_exactly(tile, *self._constants))[None].to(self.device)
        else:
            if tile.dtype != np.uint8:
                tile = tile.astype(np.float32)
            tensor = torch.from_numpy(np.ascontiguousarray(tile))[None].to(self.device)
            tensor = tensor.float().sub_(self._offset).div_(self._scale)
        return tensor.to(DTYPES[self.precision], memory_format=CHANNELS_LAST[len(self._axes)])

    def _logits(self, tensor: Tensor) -> Tensor:
        """Scores (1, n_classes, *tile), float32, averaged over the flips."""
        total = self._network(tensor)
        for axes in self._flips[1:]:
            total += self._network(tensor.flip(axes)).flip(axes)
        return total.div_(len(self._flips))

    def _halves(self, box: tuple[slice, ...]) -> list[tuple[slice, ...]]:
        """Cut the box in two across its longest axis at a multiple of the stride; empty if the box is too small."""
        sizes = [axis.stop - axis.start for axis in box]
        longest = sizes.index(max(sizes))
        stride = self._axes[longest].stride
        cut = box[longest].start + sizes[longest] // stride // 2 * stride
        if cut == box[longest].start:
            return []
        first, second = slice(box[longest].start, cut), slice(cut, box[longest].stop)
        return [(*box[:longest], part, *box[longest + 1 :]) for part in (first, second)]


def _expect_finite(logits: Tensor, tensor: Tensor) -> None:
    """Refuse scores that are NaN or infinite: the highest of them would be class 0, which looks like a result.

    Raises
    ------
    ScoresError
        Saying whether the network's input or its weights are the likely cause.
    """
    # One sum finds all of them and is cheap. It may overflow for finite scores too, so only the count decides.
    if torch.isfinite(logits.sum()) or not (n_bad := int((~torch.isfinite(logits)).any(dim=1).sum())):
        return
    low, high = (float(value) for value in torch.aminmax(tensor))
    found = f"the network's scores are NaN or infinite in {n_bad} of {logits[0, 0].numel()} pixels of a tile"
    given = f"its input goes from {low:.3g} to {high:.3g} after normalisation"
    is_of_input = not max(-low, high) <= _USUAL_INPUT
    cause = (
        f"{given}, and values so far from 0 overflow: the image or the constants of its normalisation are wrong."
        if is_of_input
        else f"{given}, which is usual, so the weights are the likely cause: the training may have diverged."
    )
    raise ScoresError(f"{found}; {cause}", is_of_input=is_of_input)


def _tiles(inner: tuple[int, ...], tile_px: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Boxes of the tile grid; the last along an axis may be smaller."""
    axes = [
        [slice(start, min(start + tile, size)) for start in range(0, size, tile)]
        for size, tile in zip(inner, tile_px, strict=True)
    ]
    return itertools.product(*axes)


def _all_flips(ndim: int) -> list[tuple[int, ...]]:
    """Axes of a (n, c, *spatial) tensor to flip: every subset of the spatial axes, the empty one first."""
    axes = range(2, 2 + ndim)
    return [subset for count in range(ndim + 1) for subset in itertools.combinations(axes, count)]


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)
