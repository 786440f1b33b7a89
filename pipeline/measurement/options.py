"""Options of the measurement."""

from dataclasses import dataclass
from typing import Annotated

from segment_slide.unet.options import Option

DEFAULT_ROWS = 1 << 18  # objects in a part: some 60 MB of columns


@dataclass(frozen=True)
class ImageChoice:
    """The image that intensities are measured in.

    Parameters
    ----------
    image : str, optional
        Location of the image; by default the one in the segmentation's record.
    level : int, optional
        Resolution level of the image; by default the one that was segmented.
    no_image : bool
        Measure shapes only.
    """

    image: Annotated[str | None, Option("Image to measure intensities in (by default the one that was segmented).")] = (
        None
    )
    level: Annotated[
        int | None, Option("Resolution level of the image (by default the one that was segmented).", at_least=0)
    ] = None
    no_image: Annotated[bool, Option("Measure only shapes, no intensities.")] = False


@dataclass(frozen=True)
class LabelChoice:
    """The label image of another tool whose values are the ids, instead of our own objects; and the table's name.

    Parameters
    ----------
    labels : str, optional
        Name in ``labels/``, or path of a label image.
    ndim : int, optional
        Number of axes that objects extend along; by default 3 if the label image has several z planes.
    table : str, optional
        Name of the table, also of that of our own objects; by default the name of the objects' label image.
    output : str, optional
        OME-Zarr in whose ``tables/`` the table is written; by default the one that is measured.
    """

    labels: Annotated[
        str | None,
        Option("Label image of any tool whose values are ids, kept as they are: its name in labels/, or its path."),
    ] = None
    ndim: Annotated[
        int | None,
        Option(
            "Axes of the objects of such a label image: 2 if each z plane has its own, 3 if they extend along z.",
            at_least=2,
            at_most=3,
        ),
    ] = None
    table: Annotated[
        str | None,
        Option("Name of the table, to measure another image beside the first (by default that of the objects)."),
    ] = None
    output: Annotated[
        str | None,
        Option(
            "OME-Zarr in whose tables/ the table is written (by default the one that is measured): for inputs that "
            "must stay as they are, or cannot be written.",
            flags=("--output", "-o"),
            metavar="OUT.ome.zarr",
        ),
    ] = None

    @property
    def name(self) -> str:
        """The label image's own name, without the folders that it lies in.

        >>> LabelChoice("cells").name, LabelChoice("/data/masks.ome.zarr/").name
        ('cells', 'masks')
        """
        return (self.labels or "").rstrip("/").rpartition("/")[2].removesuffix(".zarr").removesuffix(".ome")
