"""What each command and each flow is asked to do: assembled once, at the edge, and handed on unchanged."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from segment_slide.cluster.table import STARTED
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.measurement.options import DEFAULT_ROWS, ImageChoice
from segment_slide.pipeline.objects.options import InstanceOptions
from segment_slide.pipeline.scoring.options import IOU_THRESHOLDS, EvaluateOptions
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.unet.options import Option, read_numbers, read_range

Kind = Literal["classes", "instances", "membranes"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Workers:
    """Where a command works."""

    workers: Annotated[
        int | None, Option("Worker processes on this machine, or jobs (by default what suits the work).", above=0)
    ] = None
    cluster: Annotated[
        str,
        Option(
            f"Where to work: {', '.join(STARTED.values())}, a scheduler's address as tls://host:port, or a YAML file "
            "that says more.",
            metavar="WHERE",
        ),
    ] = "local"
    block_time_limit_s: Annotated[
        int | None,
        Option(
            "End a worker that is busy with one task for longer, as when a file server hangs; the task is tried again "
            "elsewhere. Several times what a block takes (off by default).",
            above=0,
            metavar="SECONDS",
            name="block_time_limit",
        ),
    ] = None


@dataclass(frozen=True)
class SegmentRequest:
    """What to segment, with what, into what.

    Parameters
    ----------
    input, model, output : str
        Image (Zarr), checkpoint, and the output's location; `output` is ignored if `in_place`.
    options : SegmentOptions
        Sizes, precision, probabilities; None in it means "decide for me".
    level, axes, channels, t, z
        Which pixels of the input: see `pipeline.storage.image.describe_image` and
        `pipeline.storage.source.select_source`. Of `t` and `z` the first, and the one behind the last.
    device : str
        "auto", "cpu" or "cuda".
    workers : Workers
        Where to work.
    in_place : bool
        Write into the input's own ``labels/`` group.
    input_repaired : bool
        Go on although the input's files changed, because only damaged chunks were replaced: blocks that are done stay.
    """

    input: str
    model: str
    output: Annotated[str, Option("Result, by convention NAME.ome.zarr.", metavar="OUT", flags=("--output", "-o"))] = ""
    options: SegmentOptions = SegmentOptions()
    level: Annotated[int, Option("Resolution level of the input, 0 is the finest.", at_least=0)] = 0
    axes: Annotated[str | None, Option("Axes of a bare Zarr array, one letter per dimension: yx, cyx, zyx …")] = None
    channels: Annotated[
        tuple[str, ...], Option("Channels for the network, in its order: names or numbers, as DAPI,2.")
    ] = ()
    t: Annotated[
        tuple[int, int] | None,
        Option("Time points: 3 (one) or 2:10 (from 2 up to, not including, 10).", read=read_range),
    ] = None
    z: Annotated[tuple[int, int] | None, Option("Planes, for a 2D network: 3 or 2:10.", read=read_range)] = None
    device: Annotated[str, Option("auto (a GPU if there is one), cpu or cuda.", choices=("auto", "cpu", "cuda"))] = (
        "auto"
    )
    workers: Workers = Workers()
    in_place: Annotated[bool, Option("Write into the input's own labels/ instead of an output.")] = False
    input_repaired: Annotated[
        bool, Option("Go on after damaged chunks of the input were replaced; the rest stays.")
    ] = False

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """First plane or time point and the one behind the last, by axis."""
        return {axis: ends for axis, ends in (("t", self.t), ("z", self.z)) if ends is not None}


@dataclass(frozen=True)
class InstancesRequest:
    """What to find objects in, and where ids go.

    Parameters
    ----------
    input : str
        A segmentation (its label image `name`), or an image of classes.
    name : str
        Of the class map; the instances' is ``<name>-instances``.
    output : str
        Another store for the ids; by default the segmentation itself.
    options : InstanceOptions
        What becomes an object.
    level, axes
        Of the input: see `pipeline.storage.image.describe_image`.
    workers : Workers
        Where to work.
    in_place : bool
        Write into an input that this package did not make.
    """

    input: str
    name: Annotated[str, Option("Label image of classes; the instances' is NAME-instances.")] = "segmentation"
    output: Annotated[
        str, Option("Another store for the ids (by default the input itself).", metavar="OUT", flags=("--output", "-o"))
    ] = ""
    options: InstanceOptions = InstanceOptions()
    level: Annotated[int, Option("Resolution level of the input.", at_least=0)] = 0
    axes: Annotated[str | None, Option("Axes of a bare Zarr array, one letter per dimension.")] = None
    workers: Workers = Workers()
    in_place: Annotated[bool, Option("Write into the input's labels/ although segment-slide did not make it.")] = False


@dataclass(frozen=True)
class MeasureRequest:
    """Which objects to measure, and in which image.

    Parameters
    ----------
    location : str
        OME-Zarr output of a segmentation, with instances.
    name : str
        Its label image; the objects are ``labels/<name>-instances``.
    image : ImageChoice
        Where intensities are measured; by default in the image that was segmented.
    rows : int
        Objects per file of the table.
    workers : Workers
        Where to work.
    """

    location: str
    name: Annotated[str, Option("Label image; the objects are NAME-instances.")] = "segmentation"
    image: ImageChoice = ImageChoice()
    rows: int = DEFAULT_ROWS
    workers: Workers = Workers()


@dataclass(frozen=True)
class SlideRequest:
    """What to do with one acquisition.

    Parameters
    ----------
    segment : SegmentRequest
        What to segment; its input may be a file of any format that `ingest` knows.
    image : str
        OME-Zarr that such a file is converted to; by default beside the output, ``NAME.image.ome.zarr``.
    ingest : IngestOptions
        How it is converted.
    objects : InstanceOptions, optional
        What becomes an object; None numbers none.
    measure : bool
        Whether objects are measured.
    """

    segment: SegmentRequest
    image: str = ""
    ingest: IngestOptions = IngestOptions()
    objects: InstanceOptions | None = InstanceOptions()
    measure: bool = True


@dataclass(frozen=True)
class NightRequest:
    """What to watch, and what to make of what comes.

    Parameters
    ----------
    watch : str
        Folder or URL that acquisitions arrive in.
    outputs : str
        Folder or URL for the results: see `pipeline.nights.outputs`. It may lie in `watch`, where it is not looked
        into.
    template : SlideRequest
        Model, options, workers; its input, output and image are filled in for each acquisition.
    patterns : tuple of str
        If any, only names that match one: see `pipeline.nights.acquisitions.find_acquisitions`.
    stable_minutes : float
        An acquisition that has not changed for so long is complete.
    marker : str, optional
        File that says so instead: see `pipeline.nights.acquisitions.marker_path`.
    max_tries : int
        Failures after which an acquisition is set aside, until it changes or its note is deleted.
    max_age_days : float, optional
        Leave alone what has not changed for longer and was never begun.
    """

    watch: str
    outputs: str
    template: SlideRequest
    patterns: Annotated[
        tuple[str, ...], Option("Only names that match, as '*.svs'.", flags=("--pattern",), is_repeated=True)
    ] = ()
    stable_minutes: Annotated[
        float, Option("An acquisition is complete when it has not changed for so long.", at_least=0)
    ] = 10.0
    marker: Annotated[
        str | None,
        Option(
            "It is complete when this file is there instead: {name}.done or {stem}.done beside it, or a name in its "
            "folder."
        ),
    ] = None
    max_tries: Annotated[int, Option("Failures after which an acquisition is set aside.", at_least=1)] = 3
    max_age_days: Annotated[
        float | None, Option("Leave alone what has not changed for longer and was never begun.", above=0)
    ] = None


@dataclass(frozen=True)
class EvaluateRequest:
    """What to compare, and as what.

    Parameters
    ----------
    predicted, truth : str
        Zarr (path or URL: an OME-Zarr image or label image, or a bare array), a TIFF or PNG file, or a folder of these.
    kind : {"classes", "instances", "membranes"}
        Class maps pixel by pixel; ids object by object; or a probability map of cells against cells and membranes with
        the errors of the EM challenge 2012.
    predicted_objects, truth_objects : {"auto", "ids", "components"}
        Instances: whether a side holds ids, or classes whose components are the objects. "auto": a prediction of
        uint8 or bool is a class map, anything else holds ids.
    value : int
        The class whose components are objects.
    ious : tuple of float
        Thresholds of precision, recall and F1, from 0.5.
    options : EvaluateOptions
        Block size, ignored value, binary masks; its classes are set from the above.
    predicted_level, truth_level : int
        Resolution of an OME-Zarr image.
    predicted_axes, truth_axes : str, optional
        Axes of a bare Zarr array, or of a TIFF that does not say them.
    channel : int, optional
        Channel of the prediction: which class a probability map is about.
    n_spatial : int
        2: planes (t, z) are frames of their own; 3: objects extend along z.
    """

    predicted: str
    truth: str
    kind: Annotated[
        Kind,
        Option(
            "classes (pixel by pixel), instances (object by object), or membranes (a probability map of cells, with "
            "the errors of the EM challenge 2012)."
        ),
    ] = "classes"
    predicted_objects: Annotated[
        str, Option("Instances: the prediction holds ids, or classes whose components are objects; auto.")
    ] = "auto"
    truth_objects: Annotated[str, Option("Likewise, of the truth.")] = "ids"
    value: Annotated[int, Option("Class whose components are objects.")] = 1
    ious: Annotated[
        tuple[float, ...],
        Option(
            "Thresholds of precision and recall, as 0.5,0.75 (by default 0.5 to 0.95).", name="iou", read=read_numbers
        ),
    ] = IOU_THRESHOLDS
    options: EvaluateOptions = EvaluateOptions()
    predicted_level: Annotated[int, Option("Resolution of an OME-Zarr prediction.", name="level")] = 0
    truth_level: Annotated[int, Option("Resolution of an OME-Zarr truth.")] = 0
    predicted_axes: Annotated[str | None, Option("Axes of a prediction that does not say them.", name="axes")] = None
    truth_axes: Annotated[str | None, Option("Axes of a truth that does not say them.")] = None
    channel: Annotated[int | None, Option("Channel of a prediction that has several.")] = None
    n_spatial: Annotated[
        int,
        Option("Objects extend along z; else planes stand alone.", name="volumes", flags=("--3d",), switch=(2, 3)),
    ] = 2
