"""A request checked against its input, model and output before any work: nothing is read, nothing created."""

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from segment_slide.cluster.spec import ClusterSpec
from segment_slide.flows.workers import is_elsewhere, plan_cluster
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.pipeline.segmentation.plan import SegmentPlan, plan_segmentation
from segment_slide.pipeline.segmentation.record import accept_repair, make_record
from segment_slide.pipeline.storage import place, store
from segment_slide.pipeline.storage.calibration import MICROMETRES
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.record import compare_records, read_record
from segment_slide.pipeline.storage.source import ImageSource, select_source
from segment_slide.unet.checkpoint import Checkpoint, ModelConfig, open_checkpoint

if TYPE_CHECKING:
    from segment_slide.unet.device import DeviceFacts

log = logging.getLogger(__name__)

_PIXEL_SIZE_TOLERANCE = 1.2


@dataclass(frozen=True)
class SegmentRequest:
    """What to segment, with what, into what.

    Parameters
    ----------
    input, model, output : str
        Image (Zarr), checkpoint, and the output's location; `output` is ignored if `in_place`.
    options : SegmentOptions
        Sizes, precision, probabilities; None in it means "decide for me".
    level, axes, channels, ranges
        Which pixels of the input: see `pipeline.storage.image.describe_image` and
        `pipeline.storage.source.select_source`.
    device : str
        "auto", "cpu" or "cuda".
    workers : int, optional
        Worker processes on this machine, or jobs.
    cluster : str
        Where to work: see `flows.workers.plan_cluster`.
    in_place : bool
        Write into the input's own ``labels/`` group.
    input_repaired : bool
        Go on although the input's files changed, because only damaged chunks were replaced: blocks that are done stay.
    block_time_limit_s : int, optional
        After which a worker that is busy with one task is ended.
    """

    input: str
    model: str
    output: str = ""
    options: SegmentOptions = SegmentOptions()
    level: int = 0
    axes: str | None = None
    channels: tuple[str, ...] = ()
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    device: str = "auto"
    workers: int | None = None
    cluster: str = "local"
    in_place: bool = False
    input_repaired: bool = False
    block_time_limit_s: int | None = None


@dataclass(frozen=True)
class Prepared:
    """A request that was checked against its input, model and output, before any work.

    `is_settled` says whether the workers' device is known: of workers elsewhere only when they are there.
    """

    request: SegmentRequest
    location: str
    checkpoint: Checkpoint
    plan: SegmentPlan
    cluster: ClusterSpec
    device_kind: str
    record: dict[str, Any]
    begun: bool
    is_settled: bool = True


def prepare(request: SegmentRequest, facts: "DeviceFacts | None" = None) -> Prepared:
    """Check everything that can be checked without reading a pixel or creating a file.

    Parameters
    ----------
    request : SegmentRequest
        What to do.
    facts : DeviceFacts, optional
        Of the workers, if they are there; by default of this machine, where the workers will run on it. Else what
        depends on the device is left for later.
    """
    checkpoint, source = open_request(request)
    image, name = source.image, request.options.name
    location = _output_location(request, image)
    place.check_output(location, name, image.location, in_place=request.in_place)
    begun = read_record(location, name)
    options = request.options.adopt(begun["parameters"]) if begun else request.options
    cluster = plan_cluster(request.cluster, request.workers, block_time_limit_s=request.block_time_limit_s)
    is_settled = facts is not None or not is_elsewhere(cluster)
    facts = facts or guess_facts(request.device, options, cluster)
    plan, cluster = _plan(replace(request, options=options), checkpoint, source, cluster, facts)
    record = make_record(
        plan,
        model_path=str(checkpoint.path),
        model_sha256=checkpoint.sha256,
        classes=checkpoint.config.classes,
        device_kind=facts.kind,
        processor=facts.processor,
    )
    if begun and is_settled:
        if request.input_repaired:
            begun = accept_repair(begun, record)
        compare_records(begun, record, location, can_repair=True)
        record = begun
    _warn_about_pixel_size(checkpoint.config, plan)
    return Prepared(request, location, checkpoint, plan, cluster, facts.kind, record, bool(begun), is_settled)


def guess_facts(device: str, options: SegmentOptions, cluster: ClusterSpec) -> "DeviceFacts":
    """The workers' device as far as it is known before they are there; float32, which takes the most memory."""
    from segment_slide.unet.device import DeviceFacts, describe_device

    if not is_elsewhere(cluster):
        return describe_device(device, options.precision or "auto")
    kind = "cuda" if cluster.has_gpus or device == "cuda" else "cpu"
    return DeviceFacts(kind, "", options.precision or "float32")


def open_request(request: SegmentRequest) -> tuple[Checkpoint, ImageSource]:
    """Checkpoint and pixels that a request names, checked against each other."""
    checkpoint = open_checkpoint(request.model)
    architecture = checkpoint.config.architecture
    source = select_source(
        describe_image(request.input, level=request.level, axes=request.axes),
        n_spatial=architecture.ndim,
        n_channels=architecture.in_channels,
        channels=request.channels,
        ranges=request.ranges,
    )
    return checkpoint, source


def plan_request(request: SegmentRequest) -> tuple[SegmentPlan, ClusterSpec]:
    """The plan of a request alone, with the workers it would run on."""
    cluster = plan_cluster(request.cluster, request.workers)
    return _plan(request, *open_request(request), cluster, guess_facts(request.device, request.options, cluster))


def _plan(
    request: SegmentRequest, checkpoint: Checkpoint, source: ImageSource, cluster: ClusterSpec, facts: "DeviceFacts"
) -> tuple[SegmentPlan, ClusterSpec]:
    if facts.kind == "cuda":  # one forward pass at a time, and one task that reads or writes meanwhile
        cluster = replace(cluster, cores=1)
    options = replace(request.options, precision=facts.precision)
    plan = plan_segmentation(source, checkpoint.config.architecture, options, concurrency=cluster.cores or 1)
    plan.check_memory(cluster.usable_bytes)
    return plan, cluster


def _output_location(request: SegmentRequest, image: StoredImage) -> str:
    if not request.in_place:
        if not request.output:
            raise InputError("an output is needed: --output OUT.ome.zarr, or --in-place.")
        return store.resolve_location(request.output)
    place.check_in_place(image)
    return image.location


def _warn_about_pixel_size(config: ModelConfig, plan: SegmentPlan) -> None:
    """A network knows cells of one size in pixels; say so when the slide's pixels are much larger or smaller."""
    image = plan.source.image
    level = image.multiscale.levels[image.level]
    for axis, trained in zip(plan.source.spatial_axes, config.pixel_size_um, strict=False):
        position = image.axes.index(axis)
        factor = MICROMETRES.get(image.multiscale.units[position] or "")
        if factor is None:
            continue
        size = level.scale[position] * factor
        if not 1 / _PIXEL_SIZE_TOLERANCE < size / trained < _PIXEL_SIZE_TOLERANCE:
            log.warning(
                "pixel size along %s is %.3g um, the model was trained at %.3g um; another --level may fit better",
                axis,
                size,
                trained,
            )
