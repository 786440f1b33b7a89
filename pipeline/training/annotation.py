"""Find images and their annotations, pair them and check them, before any pixel is read.

An annotation is a label image: inside an OME-Zarr image (``labels/NAME``), beside it, or a folder
of TIFF or PNG masks beside a folder of images. Files that are not Zarr are converted into the training set with the
project's own ingest, so that all other code reads one format.
"""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.ingest.formats import choose_images, natural_key, page_suffixes
from segment_slide.pipeline.ingest.grey import is_grey, may_be_grey
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.ingest.plan import IngestPlan, open_source, plan_ingest
from segment_slide.pipeline.metadata.channels import choose_channels
from segment_slide.pipeline.metadata.junk import is_hidden
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.complete import require_complete
from segment_slide.pipeline.storage.fingerprint import fingerprint
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.place import has_label, read_label_names
from segment_slide.pipeline.storage.source import ImageSource, select_source
from segment_slide.pipeline.training.options import AnnotationInput
from segment_slide.pipeline.training.pairing import pair_files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundPixels:
    """An image or a label image that exists: either a Zarr, or files with a plan to convert them to Zarr.

    Attributes
    ----------
    path : str
        Path as the user named it.
    content : StoredImage or IngestPlan
        Its metadata.
    """

    path: str
    content: StoredImage | IngestPlan

    @property
    def dtype(self) -> str:
        """Dtype of the original, not the one that ingest stores."""
        return self.content.image.dtype if isinstance(self.content, IngestPlan) else self.content.dtype

    @property
    def files(self) -> tuple[str, ...]:
        """Paths that must not be overwritten."""
        return self.content.files if isinstance(self.content, IngestPlan) else (self.content.location,)

    def fingerprint(self, begun_with: str = "") -> str:
        """Fingerprint of the input as it is now; see `pipeline.storage.fingerprint.fingerprint`."""
        if isinstance(self.content, IngestPlan):
            return self.content.record.ingested_from.fingerprint
        return fingerprint(self.content, begun_with)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """One name per channel, or empty."""
        if isinstance(self.content, StoredImage):
            return self.content.multiscale.channel_names
        return self.content.image.channel_names or tuple(f"channel {number}" for number in range(self.size("c")))

    @property
    def is_grey(self) -> bool:
        """Whether files hold colours that are equal everywhere; reads their pixels."""
        if not isinstance(self.content, IngestPlan) or not may_be_grey(self.size("c")):
            return False
        return is_grey(open_source(self.content.files, self.content.options))

    def size(self, axis: str) -> int:
        """Pixels along an axis, 1 if there is no such axis."""
        sizes = dict(zip(self.content.axes, self.content.shape, strict=True))
        return sizes.get(axis, 1)

    def __str__(self) -> str:
        """Path, axes and shape, for messages."""
        return f"{self.path} ({self.content.axes} {self.content.shape})"


@dataclass(frozen=True)
class AnnotationPair:
    """One image and its annotation, of the same size.

    Attributes
    ----------
    name : str
        Name, unique among the pairs.
    image, labels : FoundPixels
        The image and its annotation.
    """

    name: str
    image: FoundPixels
    labels: FoundPixels

    def open(self, wanted: AnnotationInput, image: StoredImage, labels: StoredImage) -> tuple[ImageSource, ImageSource]:
        """Open the image and its labels for reading, when both are Zarr."""
        n_channels = len(wanted.channels) or image.size("c")
        first = ["0"] if "c" in labels.axes else []  # colours of labels are equal
        return (
            select_source(image, n_spatial=wanted.n_spatial, n_channels=n_channels, channels=wanted.channels),
            select_source(labels, n_spatial=wanted.n_spatial, n_channels=1, channels=first),
        )


@dataclass(frozen=True)
class Annotation:
    """The images and labels that a user named, found and checked.

    Attributes
    ----------
    wanted : AnnotationInput
        What the user named.
    pairs : tuple of AnnotationPair
        Pairs, in the order of their names.
    without_labels : tuple of str
        Images without annotation; they are left out.
    """

    wanted: AnnotationInput
    pairs: tuple[AnnotationPair, ...]
    without_labels: tuple[str, ...] = ()


def find_annotation(wanted: AnnotationInput) -> Annotation:
    """Find images and labels, pair them, and check their metadata.

    Raises
    ------
    InputError
        If something is missing, has no partner or several, or image and labels differ in shape; if labels are not
        whole numbers, or are colours.
    """
    if wanted.n_spatial not in (2, 3):
        raise InputError(f"n_spatial={wanted.n_spatial}, expected 2 (planes) or 3 (volumes).")
    images = _expand(wanted.images, "image")
    if wanted.labels:
        if wanted.label_name is not None:
            raise InputError(f"label_name={wanted.label_name!r} names labels inside an image, but labels are given.")
        labels = _expand(wanted.labels, "label image")
        named, left_out = pair_files(images, labels, label_suffix=wanted.label_suffix)
        _check_different(named)
    else:
        if wanted.label_suffix is not None:
            raise InputError(f"label_suffix={wanted.label_suffix!r} pairs label images, but none are given.")
        named, left_out = pair_files(images, [_labels_inside(path, wanted.label_name) for path in images], inside=True)
    pairs = [_find_pair(name, image, labels, wanted) for name, image, labels in named]
    _check_channels(pairs, wanted)
    _warn_of_decoding([found for pair in pairs for found in (pair.image, pair.labels)])
    return Annotation(wanted, tuple(sorted(pairs, key=lambda pair: pair.name)), tuple(left_out))


def _check_different(named: Sequence[tuple[str, str, str]]) -> None:
    same = [image for _, image, labels in named if image == labels]
    if same:
        raise InputError(
            f"{same[0]} was named as an image and as a label image. If they are in one folder, name only the images "
            f"and only the label images, or give `label_suffix`, how the names of label images end."
        )


def _expand(paths: Sequence[str], what: str) -> list[str]:
    """List each image separately: a folder that is not Zarr is replaced by the images in it."""
    found: list[str] = []
    for path in map(store.resolve_location, paths):
        if store.is_zarr(path) or os.path.isfile(path):
            found.append(path)
        elif not os.path.exists(path):
            raise InputError(f"{what} {path}: no such file or directory.")
        else:
            found += _list_folder(path, what)
    if not found:
        raise InputError(f"no {what} was named.")
    if len(set(found)) < len(found):
        raise InputError(f"{len(found) - len(set(found))} of {len(found)} {what}s are named twice.")
    return found


def _list_folder(folder: str, what: str) -> list[str]:
    names = [name for name in os.listdir(folder) if not is_hidden(name)]
    zarrs = [name for name in names if name.lower().endswith(".zarr")]
    found = sorted([*zarrs, *choose_images(names)], key=natural_key)
    paths = [os.path.join(folder, name) for name in found]
    if not paths:
        raise InputError(f"{what} {folder}: the folder has none; expected {', '.join(page_suffixes())} or .zarr.")
    return paths


def _labels_inside(image: str, name: str | None) -> str:
    """The label image inside an OME-Zarr image."""
    if not store.is_zarr(image) and os.path.isfile(image):
        raise InputError(f"image {image} is a file and has no labels inside; name its label image too.")
    names = sorted(found for found in read_label_names(image) if has_label(image, found))
    if name is not None and "/" not in name and has_label(image, name):  # it need not be listed
        names = [name]
    if not names:
        raise InputError(f"image {image} has no labels inside (labels/NAME); draw some, or name its label image too.")
    if name is None and len(names) > 1:
        raise InputError(f"image {image} has {len(names)} label images; choose one: {', '.join(names)}.")
    if name is not None and name not in names:
        raise InputError(f"image {image} has no label image {name!r}; it has: {', '.join(names)}.")
    return store.join(image, "labels", name or names[0])


def _find_pair(name: str, image_path: str, label_path: str, wanted: AnnotationInput) -> AnnotationPair:
    image = _find_pixels(image_path, wanted.level, wanted.axes)
    labels = _find_labels(label_path, wanted, image)
    if labels.size("c") > 1 and not labels.is_grey:
        raise InputError(
            f"labels {labels} have {labels.size('c')} channels: colours are no labels. Save one whole number per pixel "
            f"(greyscale, or RGB with equal channels)."
        )
    if labels.dtype != "bool" and not labels.dtype.startswith(("int", "uint")):
        raise InputError(
            f"labels {labels} have dtype={labels.dtype}, expected whole numbers; round them and save them again, for "
            f"example with labels.round().astype('uint16')."
        )
    if any(image.size(axis) != labels.size(axis) for axis in "tzyx"):
        raise InputError(f"image {image} and labels {labels} differ in shape; each pixel needs its label.")
    for found in (image, labels):
        if wanted.n_spatial == 3 and "z" not in found.content.axes:
            raise InputError(f"{found} has no z axis, but n_spatial=3: volumes have z, y, x.")
    return AnnotationPair(name, image, labels)


def _find_labels(path: str, wanted: AnnotationInput, image: FoundPixels) -> FoundPixels:
    """The label image at a path. Of a file with a palette, the numbers of its colours are the labels."""
    labels = _find_pixels(path, wanted.level, wanted.label_axes, image)
    if not isinstance(labels.content, IngestPlan):
        return labels
    labels.content.image.check_mask(path)
    if wanted.label_axes is None and labels.content.image.has_numbers:
        return _find_pixels(path, wanted.level, labels.content.axes.replace("c", ""), image)
    return labels


def _find_pixels(path: str, level: int, axes: str | None, like: FoundPixels | None = None) -> FoundPixels:
    """What is at a path. A bare label array without axes takes those of its image, without channels."""
    if not store.is_zarr(path) and os.path.isfile(path):
        return FoundPixels(path, plan_ingest(path, IngestOptions(axes=axes)))
    if store.read_attributes(path) is None:  # an array or nothing; the next line reports nothing
        axes = axes or (like.content.axes.replace("c", "") if like else None)
        image = describe_image(path, axes=axes)
    else:
        image = describe_image(path, level=level)
    require_complete(image)
    return FoundPixels(path, image)


def _warn_of_decoding(found: Sequence[FoundPixels]) -> None:
    """Warn of files whose values or places are not as they are stored: other programs may read them otherwise."""
    contents = [(one.path, one.content.image.decoding) for one in found if isinstance(one.content, IngestPlan)]
    changed = [(path, decoding) for path, decoding in contents if decoding]
    if changed:
        path, decoding = changed[0]
        log.warning(
            "%d file(s) are read as viewers show them, which is not how they are stored; for example %s (%s).",
            len(changed),
            path,
            decoding,
        )


def _check_channels(pairs: Sequence[AnnotationPair], wanted: AnnotationInput) -> None:
    """Refuse images that one network cannot read: all need the same number of channels, and the chosen ones."""
    for pair in pairs:
        choose_channels(wanted.channels, pair.image.size("c"), pair.image.channel_names, pair.image.path)
    counts = {pair.image.size("c"): pair.image for pair in pairs}
    if len(counts) > 1 and not wanted.channels:
        shown = ", ".join(f"{image} has {n}" for n, image in sorted(counts.items()))
        raise InputError(f"images differ in their number of channels: {shown}. Choose channels, or fewer images.")


def safe_name(name: str) -> str:
    """A name that is valid as a single plain folder in a store.

    >>> safe_name("slide 3/a")
    'slide_3_a'
    """
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
