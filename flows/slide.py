"""Process one acquisition, from a microscope's file to the table of its objects: convert, segment, number, measure.

A command, a nightly run and Prefect all call these same four stages. Each stage resumes where it was interrupted.
"""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

from segment_slide.flows.ingest import IngestReport, ingest_image
from segment_slide.flows.instances import label_objects
from segment_slide.flows.measure import MeasureReport, measure_objects
from segment_slide.flows.report import try_report
from segment_slide.flows.requests import InstancesRequest, MeasureRequest, SegmentRequest, SlideRequest
from segment_slide.flows.segment import segment_image
from segment_slide.flows.segment_request import resolve_segment_request
from segment_slide.flows.workers import plan_cluster, sharing_workers
from segment_slide.pipeline.blocks.progress import QuietStages, Stages, timed
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.ingest.plan import plan_ingest
from segment_slide.pipeline.objects.options import InstanceOptions
from segment_slide.pipeline.objects.stages import InstancesReport
from segment_slide.pipeline.recorded.addresses import naming
from segment_slide.pipeline.segmentation.stages import SegmentReport
from segment_slide.pipeline.statistics.object_sizes import SmallObjects
from segment_slide.pipeline.storage import store
from segment_slide.unet.open_network import open_network


@dataclass(frozen=True)
class SlideReport:
    """The results of the stages; None for stages that were not requested or not needed. `page` is the report, or ""."""

    converted: IngestReport | None
    segmented: SegmentReport
    numbered: InstancesReport | None
    measured: MeasureReport | None
    stage_seconds: dict[str, float]
    page: str = ""

    @property
    def small(self) -> SmallObjects | None:
        """How many objects are small; None if nobody counted them."""
        if self.measured is not None:
            return self.measured.summary.small
        return self.numbered.small if self.numbered is not None else None


def process_slide(request: SlideRequest, progress: Stages | None = None) -> SlideReport:
    """Run all stages, one after the other.

    Raises
    ------
    UnetError, PipelineError, ClusterError
        If a stage raises it. What is done is kept; the same call resumes.
    """
    progress, clock = progress or QuietStages(), dict[str, float]()
    check_request(request)
    with timed(clock, "convert"):
        converted = convert(request, progress)
    with naming_places(request), sharing_workers():
        with timed(clock, "segment"):
            segmented = segment_image(segment_request(request), progress)
        with timed(clock, "number"):
            numbered = label_objects(instances_request(request), progress) if request.objects else None
        with timed(clock, "measure"):
            measures = request.objects and request.measure
            measured = measure_objects(measure_request(request), progress) if measures else None
        page = try_report(segmented.location, segmented.name, clock)
    return SlideReport(converted, segmented, numbered, measured, clock, page)


def check_request(request: SlideRequest) -> None:
    """Refuse a request that cannot be carried out, before any work. An image that must be converted is checked later.

    Raises
    ------
    UnetError, PipelineError, ClusterError
        If the request is bad; the message says what to change.
    """
    if needs_conversion(request.segment.input):
        plan_ingest([Path(request.segment.input)], request.ingest)
        open_network(request.segment.model)
        plan_cluster(request.segment.workers)
    else:
        resolve_segment_request(segment_request(request))


def needs_conversion(source: str) -> bool:
    """Whether an input is a microscope's file, not Zarr."""
    return not store.is_zarr(store.resolve_location(source))


def image_location(request: SlideRequest) -> str:
    """The OME-Zarr image that is segmented.

    Raises
    ------
    InputError
        If a file must be converted and neither an image nor an output is named.
    """
    source, output = request.segment.input, request.segment.output
    if not needs_conversion(source):
        return source
    if request.image:
        return request.image
    if not output:
        raise InputError(f"input={source} has to be converted to OME-Zarr: an output is needed.")
    return f"{output.rstrip('/').removesuffix('.zarr').removesuffix('.ome')}.image.ome.zarr"


def convert(request: SlideRequest, progress: Stages) -> IngestReport | None:
    """Convert a microscope's file to OME-Zarr; return None if the input is Zarr already."""
    if not needs_conversion(request.segment.input):
        return None
    return ingest_image([Path(request.segment.input)], image_location(request), request.ingest, progress)


def naming_places(request: SlideRequest) -> contextlib.AbstractContextManager[None]:
    """While the body runs, the places of a request are named: records of its own output may lead to them."""
    return naming(request.segment.input, request.image, request.segment.output)


def segment_request(request: SlideRequest) -> SegmentRequest:
    """The request of the segmentation, which starts once the image is Zarr."""
    return replace(request.segment, input=image_location(request))


def instances_request(request: SlideRequest) -> InstancesRequest:
    """The request of the numbering, which starts once there is a segmentation."""
    segment = request.segment
    return InstancesRequest(
        _output(request),
        segment.options.name,
        options=request.objects or InstanceOptions(),
        workers=segment.workers,
    )


def measure_request(request: SlideRequest) -> MeasureRequest:
    """The request of the measurement, which starts once the objects are numbered."""
    segment = request.segment
    return MeasureRequest(
        _output(request),
        segment.options.name,
        workers=segment.workers,
    )


def _output(request: SlideRequest) -> str:
    return image_location(request) if request.segment.in_place else request.segment.output
