"""Check a request against its input, model and output before any work. No pixel is read and nothing is created."""

from dataclasses import replace

from segment_slide.cluster.spec import ClusterSpec
from segment_slide.cluster.table import is_elsewhere
from segment_slide.flows.requests import SegmentRequest
from segment_slide.flows.workers import plan_cluster
from segment_slide.pipeline.errors import InputError, PlanError
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.pipeline.segmentation.plan import SegmentPlan, plan_segmentation
from segment_slide.pipeline.segmentation.prepare import Destination, PreparedSegmentation, prepare_segmentation
from segment_slide.pipeline.storage import place, store
from segment_slide.pipeline.storage.complete import require_complete
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.label_records import read_record
from segment_slide.pipeline.storage.source import ImageSource, select_source
from segment_slide.unet.device_facts import DeviceFacts, guess_device
from segment_slide.unet.open_network import StoredNetwork, find_precisions, open_network


def resolve_segment_request(
    request: SegmentRequest, facts: DeviceFacts | None = None
) -> tuple[PreparedSegmentation, ClusterSpec]:
    """Check everything that can be checked without reading a pixel or creating a file, and choose the workers.

    Parameters
    ----------
    request : SegmentRequest
        The request.
    facts : DeviceFacts, optional
        Device of the workers, if they have connected. By default the device of this machine, if the workers will run
        on it; otherwise choices that depend on the device are left for later.
    """
    network, source = open_request(request)
    image, name = source.image, request.options.name
    require_complete(image)
    location = _output_location(request, image)
    place.check_output(location, name, image.location, in_place=request.in_place)
    begun = read_record(location, name)
    options = request.options.adopt(begun.parameters) if begun else request.options
    cluster = plan_cluster(request.workers)
    is_settled = facts is not None or not is_elsewhere(cluster)
    facts = facts or guess_facts(request.device, options, cluster)
    plan, cluster = _plan(replace(request, options=options), network, source, cluster, facts)
    destination = Destination(
        location,
        name,
        request.in_place,
        request.input_repaired,
        request.accept_processor,
        request.full_fingerprint,
    )
    prepared = prepare_segmentation(plan, network, destination, facts, is_settled=is_settled)
    return prepared, cluster


def guess_facts(device: str, options: SegmentOptions, cluster: ClusterSpec) -> DeviceFacts:
    """Guess the workers' device before they have connected. The guess is float32, which needs the most memory."""
    if not is_elsewhere(cluster):
        from segment_slide.unet.device import describe_device

        return describe_device(device, options.precision or "auto")
    kind = "cuda" if cluster.has_gpus or device == "cuda" else "cpu"
    return DeviceFacts(kind, "", options.precision or "float32")


def open_request(request: SegmentRequest) -> tuple[StoredNetwork, ImageSource]:
    """Open the network and the image of a request, and check that they fit each other."""
    network = open_network(request.model)
    source = select_source(
        describe_image(request.input, level=request.level, axes=request.axes),
        n_spatial=len(network.description.axes),
        n_channels=network.description.in_channels,
        channels=request.channels,
        ranges=request.ranges,
    )
    return network, source


def plan_request(request: SegmentRequest) -> tuple[SegmentPlan, ClusterSpec]:
    """Plan a request and its workers, without looking at the output."""
    cluster, options = plan_cluster(request.workers), request.options
    facts = None if is_elsewhere(cluster) else guess_device(request.device, options.precision or "auto")
    facts = facts or guess_facts(request.device, options, cluster)
    return _plan(request, *open_request(request), cluster, facts)


def _plan(
    request: SegmentRequest, network: StoredNetwork, source: ImageSource, cluster: ClusterSpec, facts: DeviceFacts
) -> tuple[SegmentPlan, ClusterSpec]:
    if facts.kind == "cuda":  # one forward pass at a time, while another task reads or writes
        cluster = replace(cluster, cores=1)
    precision = choose_precision(network, request.options.precision, facts.precision)
    options = replace(request.options, precision=precision)
    plan = plan_segmentation(source, network.description, options, concurrency=cluster.cores or 1)
    plan.check_memory(cluster.usable_bytes)
    return plan, cluster


def choose_precision(network: StoredNetwork, wanted: str | None, suggested: str) -> str:
    """The precision of the device, or the only one that the network has.

    Raises
    ------
    PlanError
        If the user wants another.
    """
    possible = find_precisions(network)
    if suggested in possible:
        return suggested
    if wanted in (None, "auto"):
        return possible[0]
    raise PlanError(
        f"precision={wanted}: {network.path.name} runs in {' or '.join(possible)} only, as it was exported."
    )


def _output_location(request: SegmentRequest, image: StoredImage) -> str:
    if not request.in_place:
        if not request.output:
            raise InputError("an output is needed: --output OUT.ome.zarr, or --in-place.")
        return store.resolve_location(request.output)
    place.check_in_place(image)
    return image.location
