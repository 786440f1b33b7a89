"""The request of each command and flow: made once from the user's input, then passed on unchanged."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from segment_slide.cluster.table import STARTED
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.measurement.options import DEFAULT_ROWS, ImageChoice, LabelChoice
from segment_slide.pipeline.objects.options import InstanceOptions
from segment_slide.pipeline.scoring.options import IOU_THRESHOLDS, EvaluateOptions
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.unet.options import Option, read_numbers, read_range

Kind = Literal["classes", "instances", "membranes"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Workers:
    """The workers that a command uses."""

    workers: Annotated[
        int | None,
        Option("Number of worker processes on this machine, or of jobs (by default chosen to suit the work).", above=0),
    ] = None
    cluster: Annotated[
        str,
        Option(
            f"Where to work: {', '.join(STARTED.values())}, a scheduler's address like tls://host:port, or a YAML file "
            "that describes a cluster.",
            metavar="WHERE",
        ),
    ] = "local"
    block_time_limit_s: Annotated[
        int | None,
        Option(
            "End a worker that is busy with one task for longer than this, for example because a file server hangs, "
            "and try the task elsewhere. Choose several times the duration of a block (off by default).",
            above=0,
            metavar="SECONDS",
            name="block_time_limit",
        ),
    ] = None
    allow_unencrypted: Annotated[bool, Option("Join a tcp:// address: all who reach it can run code as you.")] = False


@dataclass(frozen=True)
class SegmentRequest:
    """Which image to segment, with which network, into which output.

    Parameters
    ----------
    input, model, output : str
        Image (Zarr), checkpoint, and the output's location; `output` is ignored if `in_place`.
    options : SegmentOptions
        Sizes, precision, probabilities; None in it means "use the default".
    level, axes, channels, t, z
        Which pixels of the input: see `pipeline.storage.source.select_source`; `t` and `z` without the stop.
    device, workers
        "auto", "cpu" or "cuda"; where to work.
    in_place : bool
        Write into the input's own ``labels/`` group.
    input_repaired, accept_processor, full_fingerprint : bool
        Resume although chunks of the input were replaced, or on another processor; fingerprint all bytes of the input.
    """

    input: str
    model: str
    output: Annotated[
        str, Option("Output to write, by convention NAME.ome.zarr.", metavar="OUT", flags=("--output", "-o"))
    ] = ""
    options: SegmentOptions = SegmentOptions()
    level: Annotated[int, Option("Resolution level of the input; 0 is the finest.", at_least=0)] = 0
    axes: Annotated[str | None, Option("Axes of a bare Zarr array, one letter per dimension: yx, cyx, zyx …")] = None
    channels: Annotated[
        tuple[str, ...], Option("Channels for the network, in its order: names, or numbers from 0, like DAPI,2.")
    ] = ()
    t: Annotated[
        tuple[int, int] | None,
        Option("Time points: 3 (one) or 2:10 (from 2 to 9; 10 is not included).", read=read_range),
    ] = None
    z: Annotated[tuple[int, int] | None, Option("Planes, for a 2D network: 3 or 2:10.", read=read_range)] = None
    device: Annotated[
        str, Option("Device: auto (a GPU if there is one), cpu or cuda.", choices=("auto", "cpu", "cuda"))
    ] = "auto"
    workers: Workers = Workers()
    in_place: Annotated[bool, Option("Write into the input's own labels/ instead of an output.")] = False
    input_repaired: Annotated[
        bool, Option("Resume after damaged chunks of the input were replaced. Blocks that touched them are redone.")
    ] = False
    accept_processor: Annotated[bool, Option("Resume on another processor or torch. The record says so.")] = False
    full_fingerprint: Annotated[bool, Option("Identify the input by all its bytes, not by samples of them.")] = False

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Start and stop of the planes or time points, by axis; the stop is not included."""
        return {axis: ends for axis, ends in (("t", self.t), ("z", self.z)) if ends is not None}


@dataclass(frozen=True)
class InstancesRequest:
    """In which class map to find objects, and where to store their ids.

    Parameters
    ----------
    input : str
        A segmentation (its label image `name`), or an image of classes.
    name : str
        Name of the class map; the instances are stored as ``<name>-instances``.
    output : str
        Another store for the ids; by default the segmentation itself.
    options : InstanceOptions
        Which pixels become an object.
    level, axes, workers
        Resolution level and axes of the input: see `pipeline.storage.image.describe_image`; where to work.
    in_place : bool
        Write into the input although this package did not make it.
    """

    input: str
    name: Annotated[str, Option("Label image of classes; objects are stored as NAME-instances.")] = "segmentation"
    output: Annotated[
        str, Option("Store to write the ids to (by default the input).", metavar="OUT", flags=("--output", "-o"))
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
        Label image of the segmentation; the objects are ``labels/<name>-instances``.
    labels : LabelChoice
        Label image of another tool to measure instead, and the name of the table.
    image : ImageChoice
        Image in which intensities are measured; by default the image that was segmented.
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
    labels: LabelChoice = LabelChoice()


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
        How the file is converted.
    objects : InstanceOptions, optional
        Which pixels become an object; None numbers no objects.
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
    """Which folder to watch, and how to process new acquisitions.

    Parameters
    ----------
    watch : str
        Folder or URL that acquisitions arrive in.
    outputs : str
        Folder or URL for the results: see `pipeline.nights.outputs`. Inside `watch`, it is not searched.
    template : SlideRequest
        Model, options, workers. Its input, output and image are filled in for each acquisition.
    patterns : tuple of str
        If given, only names that match one of them: see `pipeline.nights.acquisitions.find_acquisitions`.
    stable_minutes : float
        An acquisition is complete when it has not changed for this long.
    marker : str, optional
        An acquisition is complete when this file exists, instead: see `pipeline.nights.acquisitions.marker_path`.
    max_tries : int
        Number of failures after which an acquisition is set aside, until it changes or its note is deleted.
    max_age_days : float, optional
        Ignore acquisitions that have not changed for longer and were never begun.
    """

    watch: str
    outputs: str
    template: SlideRequest
    patterns: Annotated[
        tuple[str, ...], Option("Only names that match, like '*.svs'.", flags=("--pattern",), is_repeated=True)
    ] = ()
    stable_minutes: Annotated[
        float, Option("An acquisition is complete when it has not changed for this many minutes.", at_least=0)
    ] = 10.0
    marker: Annotated[
        str | None,
        Option(
            "Instead: an acquisition is complete when this file exists. {name}.done or {stem}.done lies beside it; a "
            "plain name lies in its folder."
        ),
    ] = None
    max_tries: Annotated[int, Option("Number of failures after which an acquisition is set aside.", at_least=1)] = 3
    max_age_days: Annotated[
        float | None,
        Option("Ignore acquisitions that were never begun and have not changed for this many days.", above=0),
    ] = None


@dataclass(frozen=True)
class EvaluateRequest:
    """Which two segmentations to compare, and how.

    Parameters
    ----------
    predicted, truth : str
        Zarr (path or URL: an OME-Zarr image or label image, or a bare array), a TIFF or PNG file, or a folder of these.
    kind : {"classes", "instances", "membranes"}
        Class maps pixel by pixel; ids object by object; or a probability map of cells against cells and membranes, with
        the error measures of the EM challenge 2012.
    predicted_objects, truth_objects : {"auto", "ids", "components"}
        For instances: whether a side holds ids, or classes whose connected components are the objects. "auto": data of
        uint8 or bool are a class map, anything else holds ids.
    value : int
        The class whose connected components are objects.
    ious : tuple of float
        Thresholds of precision, recall and F1, from 0.5.
    options : EvaluateOptions
        Block size, ignored value, binary masks, names of files; its classes are set from the values above.
    predicted_level, truth_level : int
        Resolution level of an OME-Zarr image.
    predicted_axes, truth_axes : str, optional
        Axes of a bare Zarr array, or of a TIFF that does not say them.
    channel : str, optional
        Channel of the prediction, by name or number: which class a probability map is about.
    n_spatial : int
        2: each plane (t, z) is a frame of its own; 3: objects extend along z.
    """

    predicted: str
    truth: str
    kind: Annotated[
        Kind,
        Option(
            "What to compare: classes (pixel by pixel), instances (object by object), or membranes (a probability map "
            "of cells, with the error measures of the EM challenge 2012)."
        ),
    ] = "classes"
    predicted_objects: Annotated[
        str,
        Option(
            "For instances, what the prediction holds: ids, components (a class map whose connected components are "
            "the objects), or auto (by the data type)."
        ),
    ] = "auto"
    truth_objects: Annotated[
        str, Option("For instances, what the truth holds: ids, components or auto; see --predicted-objects.")
    ] = "ids"
    value: Annotated[int, Option("Class whose connected components are the objects.")] = 1
    ious: Annotated[
        tuple[float, ...],
        Option("IoU thresholds for the scores, like 0.5,0.75 (by default 0.5 to 0.95).", name="iou", read=read_numbers),
    ] = IOU_THRESHOLDS
    options: EvaluateOptions = EvaluateOptions()
    predicted_level: Annotated[int, Option("Resolution level of an OME-Zarr prediction.", name="level")] = 0
    truth_level: Annotated[int, Option("Resolution level of an OME-Zarr truth.")] = 0
    predicted_axes: Annotated[
        str | None, Option("Axes of the prediction, if its file does not name them.", name="axes")
    ] = None
    truth_axes: Annotated[str | None, Option("Axes of the truth, if its file does not name them.")] = None
    channel: Annotated[str | None, Option("Channel of the prediction, if it has several: its name or number.")] = None
    n_spatial: Annotated[
        int, Option("Objects extend along z, across planes.", name="volumes", flags=("--3d",), switch=(2, 3))
    ] = 2
