"""The pixels of an image as the network wants them: chosen channels and planes, mirrored at the border.

An `ImageSource` is a few hundred bytes that travel to a worker; the array is opened there, anew for each read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.blocks.grid import ceil_divide, reflect
from segment_slide.pipeline.errors import ChunkAccessError, InputError, NotFiniteError, UnreadableChunkError
from segment_slide.pipeline.metadata.channels import choose_channels, list_names, say_channels
from segment_slide.pipeline.reads.noted import Notes, read_noted
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.remedy import say_remedy
from segment_slide.pipeline.storage.store import join, open_store
from segment_slide.unet.boxes import Box


def read_stored(image: StoredImage, box: tuple[slice, ...]) -> np.ndarray:
    """Pixels of a stored box. What is read of its files is added to the image's list, if it has one."""
    if not image.notes:
        return np.asarray(image.array()[box])
    notes = Notes(image.notes, join(image.location, image.array_path))
    return read_noted(open_store(image.location), image.array_path, image.zarr_format, box, notes)


@dataclass(frozen=True)
class ImageSource:
    """A view of a stored image with canonical axes: (plane axes…, c, spatial axes…).

    Parameters
    ----------
    image : StoredImage
        The stored level.
    n_spatial : int
        Number of spatial axes of the network. 2: y and x; z and t are plane axes. 3: z, y and x; t is a plane axis.
    channels : tuple of int
        Channels in the order the network takes them.
    ranges : tuple of (start, stop)
        Chosen range of each plane axis (`plane_axes`).
    """

    image: StoredImage
    n_spatial: int
    channels: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]

    @property
    def spatial_axes(self) -> str:
        """Letters of the network's axes: yx or zyx."""
        return "zyx"[-self.n_spatial :]

    @property
    def plane_axes(self) -> str:
        """Axes along which planes are segmented one by one."""
        return "".join(axis for axis in "tz" if axis in self.image.axes and axis not in self.spatial_axes)

    @property
    def axes(self) -> str:
        """Axes of the segmentation: the image's without channels."""
        return self.plane_axes + self.spatial_axes

    @property
    def shape(self) -> tuple[int, ...]:
        """Size (px) of the segmentation, on `axes`."""
        planes = tuple(stop - start for start, stop in self.ranges)
        return planes + tuple(self.image.size(axis) for axis in self.spatial_axes)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """dtype of the blocks that `read` returns (native byte order)."""
        return np.dtype(self.image.dtype).newbyteorder("=")

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel with all its channels."""
        return self.dtype.itemsize * len(self.channels)

    @property
    def stored_pixel_bytes(self) -> int:
        """Bytes of one pixel as it is read: all channels from the first chosen to the last."""
        return self.dtype.itemsize * (max(self.channels) - min(self.channels) + 1)

    def read(self, box: Box, *, needs_finite: bool = True) -> np.ndarray:
        """Pixels of a box, mirrored where it leaves the image.

        Parameters
        ----------
        box : tuple of slice
            On `axes`; spatial slices may start below 0 and end beyond the image.
        needs_finite : bool
            Refuse values that the network cannot compute with.

        Returns
        -------
        ndarray, (*planes, c, *spatial)
            Native byte order, in the stored dtype.

        Raises
        ------
        UnreadableChunkError
            If a chunk cannot be read, naming it; `ChunkAccessError` if the system is to blame.
        NotFiniteError
            If a value is NaN, infinite or beyond float32, naming its position.
        """
        stored, mirrors = self._stored_box(box)
        try:
            pixels = read_stored(self.image, stored)
        except Exception as error:  # codecs raise whatever they like on damaged bytes
            # errors of the system have an errno; OSErrors that gzip and bz2 raise on damaged bytes have none
            is_systems = isinstance(error, OSError) and error.errno is not None
            kind = ChunkAccessError if is_systems else UnreadableChunkError
            raise kind(self._explain_unreadable(stored, error)) from error
        pixels = self._to_canonical(pixels)
        if needs_finite and pixels.dtype.kind == "f" and not (usable := _is_usable(pixels)).all():
            raise NotFiniteError(self._explain_not_finite(pixels, ~usable, stored))
        for axis, indices in mirrors.items():
            pixels = pixels.take(indices, axis=axis)
        return pixels

    def _stored_box(self, box: Box) -> tuple[tuple[slice, ...], dict[int, list[int]]]:
        """The smallest stored box that holds all of `box`, and how to mirror it on canonical axes."""
        by_axis: dict[str, slice] = {"c": slice(min(self.channels), max(self.channels) + 1)}
        mirrors = {}
        for position, (axis, wanted) in enumerate(zip(self.axes, box, strict=True)):
            size = self.image.size(axis)
            if axis in self.plane_axes:
                start = self.ranges[position][0]
                by_axis[axis] = slice(start + wanted.start, start + wanted.stop)
            elif wanted.start >= 0 and wanted.stop <= size:
                by_axis[axis] = wanted
            else:
                indices = [reflect(i, size) for i in range(wanted.start, wanted.stop)]
                first = min(indices)
                by_axis[axis] = slice(first, max(indices) + 1)
                canonical_axis = position if position < len(self.plane_axes) else position + 1
                mirrors[canonical_axis] = [i - first for i in indices]
        return tuple(by_axis[axis] for axis in self.image.axes), mirrors

    def _to_canonical(self, pixels: np.ndarray) -> np.ndarray:
        """Stored axes to (*planes, c, *spatial), chosen channels in their order, native byte order."""
        order = self.plane_axes + "c" + self.spatial_axes
        present = [axis for axis in order if axis in self.image.axes]
        pixels = pixels.transpose([self.image.axes.index(axis) for axis in present])
        for position, axis in enumerate(order):
            if axis not in self.image.axes:
                pixels = np.expand_dims(pixels, position)
        first = min(self.channels)
        chosen = [channel - first for channel in self.channels]
        if chosen != list(range(pixels.shape[len(self.plane_axes)])):
            pixels = pixels.take(chosen, axis=len(self.plane_axes))
        return pixels.astype(self.dtype, copy=False)

    def _explain_unreadable(self, stored: Box, error: Exception) -> str:
        chunks = ", ".join(self._unreadable_chunks(stored)) or "unknown"
        array = join(self.image.location, self.image.array_path)
        remedy = say_remedy(self.image)
        return f"unreadable chunk {chunks} of {array} ({type(error).__name__}: {error}){'.' if remedy else ''}{remedy}"

    def _unreadable_chunks(self, stored: Box) -> list[str]:
        """Grid positions of the chunks (files) inside a stored box that fail when read alone."""
        array, sizes = self.image.array(), self.image.chunks
        grids = [range(s.start // size, ceil_divide(s.stop, size)) for s, size in zip(stored, sizes, strict=True)]
        bad = []
        for index in np.ndindex(*map(len, grids)):
            chunk = [grid[i] for grid, i in zip(grids, index, strict=True)]
            try:
                array[tuple(slice(i * size, (i + 1) * size) for i, size in zip(chunk, sizes, strict=True))]
            except Exception:  # noqa: BLE001 - codecs raise whatever they like, as above
                bad.append("/".join(map(str, chunk)))
        return bad

    def _explain_not_finite(self, pixels: np.ndarray, bad: np.ndarray, stored: Box) -> str:
        """Say which value is not finite, and where; `pixels` are canonical and not yet mirrored."""
        first = np.argwhere(bad)[0]
        value = pixels[tuple(first)]
        channel, place = self.channels[first[len(self.plane_axes)]], np.delete(first, len(self.plane_axes))
        starts = [stored[self.image.axes.index(axis)].start for axis in self.axes]
        position = ", ".join(f"{a}={s + p}" for a, s, p in zip(self.axes, starts, place, strict=True))
        if self.image.size("c") > 1:
            position = f"c={channel}, {position}"
        return (
            f"{int(bad.sum())} value(s) are not finite as float32, the first is {value} at {position}; "
            f"the network would spread it over its whole field of view. Replace such values in the input."
        )


def _is_usable(pixels: np.ndarray) -> np.ndarray:
    """Where real numbers are finite as float32, which the network computes with: a float64 of 1e300 is not."""
    usable: np.ndarray = np.abs(pixels) <= np.finfo(np.float32).max  # false for NaN too
    return usable


def select_source(
    image: StoredImage,
    *,
    n_spatial: int,
    n_channels: int,
    channels: Sequence[str | int] = (),
    ranges: dict[str, tuple[int, int]] | None = None,
) -> ImageSource:
    """Choose channels and planes of an image for a network.

    Parameters
    ----------
    image : StoredImage
        The stored level.
    n_spatial, n_channels : int
        What the network takes.
    channels : sequence of int or str, optional
        Names or numbers, see `pipeline.metadata.channels`; all channels by default.
    ranges : dict, optional
        Start and stop (px) per plane axis, e.g. ``{"z": (3, 4)}``; all planes by default.

    Raises
    ------
    InputError
        If channels or planes do not exist, or do not match the network.
    """
    if n_spatial == 3 and "z" not in image.axes:
        raise InputError(f"{image.location} has axes {image.axes!r}, but the model is 3D and needs z, y, x.")
    names, n_stored = image.multiscale.channel_names, image.size("c")
    chosen = choose_channels(channels, n_stored, names, image.location) or tuple(range(n_stored))
    if len(chosen) != n_channels:
        raise InputError(_explain_number(image, len(chosen), n_channels))
    source = ImageSource(image, n_spatial, chosen, ())
    ranges = ranges or {}
    for axis in ranges:
        if axis not in source.plane_axes:
            raise InputError(f"`{axis}` was given, but {axis!r} is not a plane axis of {image.location}.")
    picked = []
    for axis in source.plane_axes:
        start, stop = ranges.get(axis, (0, image.size(axis)))
        if not 0 <= start < stop <= image.size(axis):
            raise InputError(f"{axis}={start}:{stop}, expected a range within 0:{image.size(axis)}.")
        picked.append((start, stop))
    return ImageSource(image, n_spatial, chosen, tuple(picked))


def _explain_number(image: StoredImage, n_chosen: int, n_wanted: int) -> str:
    names, n_stored = image.multiscale.channel_names, image.size("c")
    available = f" ({list_names(names)})" if names else ""
    problem = (
        f"{image.location} has {n_stored} channel(s){available}, {n_chosen} chosen, but the model takes {n_wanted}"
    )
    if n_wanted > n_stored:
        return f"{problem}: it is a model for other images."
    example = say_channels(range(n_wanted), n_stored, names)
    return f"{problem}; choose with `channels`, for example `channels={example!r}`."
