"""Options of the training data."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from segment_slide.unet.options import Option
from segment_slide.unet.weight_settings import WeightSettings

if TYPE_CHECKING:  # the command line reads the options at each start, and needs no arrays for that
    from segment_slide.pipeline.training.label_values import LabelRule


@dataclass(frozen=True)
class WeightOptions:
    """Options of the weight maps.

    Parameters
    ----------
    kind : str
        Meaning of label values: "instances" (the default: ids of objects), "classes" or "binary".
    ignore : int, optional
        Label value of pixels that nobody annotated.
    settings : WeightSettings
        Parameters of Eq. 2.
    class_names : tuple of str
        Names of the classes, background first; by default "background", "foreground" (or "class 1", "class 2" …).
    block, chunk : int, optional
        Pixels per spatial axis of a block (one task and one file), and of a chunk (compressed at once).
    """

    kind: Annotated[
        str,
        Option(
            "Meaning of label values: instances (ids), classes, or binary (above 0 is foreground).",
            choices=("instances", "classes", "binary"),
        ),
    ] = "instances"
    ignore: Annotated[int | None, Option("Label value of pixels without annotation; training ignores them.")] = None
    settings: WeightSettings = WeightSettings()
    class_names: Annotated[
        tuple[str, ...],
        Option("Names of the classes, background first.", metavar="NAME", flags=("--class-name",), is_repeated=True),
    ] = ()
    block: Annotated[int | None, Option("Pixels per side of one task and one file.", above=0)] = None
    chunk: int | None = None

    @property
    def rule(self) -> "LabelRule":
        """How label values are read."""
        from segment_slide.pipeline.training.label_values import LabelRule, as_kind

        needs_objects = self.settings.reach_px > 0 or self.settings.ridge_px > 0  # w0 alone must not change classes
        return LabelRule(as_kind(self.kind), self.ignore, needs_objects)


@dataclass(frozen=True)
class AnnotationInput:
    """What a user names: images, their annotation, and how to read both.

    Parameters
    ----------
    images : tuple of str
        OME-Zarr images, Zarr arrays or files (TIFF, PNG …); a folder stands for all images in it.
    labels : tuple of str
        Label images, named in the same way; empty if each image is an OME-Zarr with its annotation inside
        (``labels/NAME``).
    label_name : str, optional
        Name of the label image inside; by default the only one.
    n_spatial : int
        2: samples are planes; 3: samples are volumes.
    channels : tuple of str
        Channels of the images, names or numbers; all by default.
    level : int
        Resolution of OME-Zarr images and labels, 0 the finest.
    label_suffix : str, optional
        How names of label images end beyond their image's, see `pipeline.training.pairing.pair_files`.
    axes, label_axes : str, optional
        Axes of bare Zarr arrays and of TIFF files that do not name them. By default, a bare label array has the axes
        of its image.
    """

    images: tuple[str, ...]
    labels: tuple[str, ...] = ()
    label_name: Annotated[str | None, Option("Name of the label image inside each OME-Zarr, if there are several.")] = (
        None
    )
    n_spatial: Annotated[
        int,
        Option(
            "Learn from volumes (z, y, x) instead of plane by plane.", name="volumes", flags=("--3d",), switch=(2, 3)
        ),
    ] = 2
    channels: Annotated[tuple[str, ...], Option("Channels to learn from: names, or numbers from 0, like DAPI,2.")] = ()
    level: Annotated[int, Option("Resolution level of OME-Zarr images and labels; 0 is the finest.", at_least=0)] = 0
    label_suffix: Annotated[
        str | None,
        Option("How names of label images end beyond their image's, like _mask, if names alone do not pair them."),
    ] = None
    axes: Annotated[str | None, Option("Axes of images whose file does not name them.")] = None
    label_axes: Annotated[str | None, Option("Axes of labels whose file does not name them.")] = None
