"""The stages of one slide as Prefect tasks. Each calls the same function as the command line."""

from collections.abc import Callable, Mapping

from segment_slide.flows import slide
from segment_slide.flows.deployed.operate import last_name, stage
from segment_slide.flows.deployed.stages import ArtifactStages
from segment_slide.flows.ingest import IngestReport
from segment_slide.flows.instances import label_objects
from segment_slide.flows.measure import MeasureReport, measure_objects
from segment_slide.flows.report import try_report
from segment_slide.flows.requests import SlideRequest
from segment_slide.flows.segment import segment_image
from segment_slide.pipeline.objects.stages import InstancesReport
from segment_slide.pipeline.segmentation.stages import SegmentReport


def _named(what: str) -> Callable[[SlideRequest], str]:
    return lambda request: f"{what} {last_name(request.segment.input)}"


@stage("convert", _named("convert"))
def convert(request: SlideRequest) -> IngestReport | None:
    """Convert a microscope's file to OME-Zarr, unless it is Zarr already."""
    return slide.convert(request, ArtifactStages())


@stage("segment", _named("segment"))
def segment(request: SlideRequest) -> SegmentReport:
    """Segment all pixels into classes: plan, connect, normalise, segment, build the pyramid."""
    return segment_image(slide.segment_request(request), ArtifactStages())


@stage("number", _named("number objects of"))
def number(request: SlideRequest) -> InstancesReport:
    """Number all objects, and build the pyramid of their ids."""
    return label_objects(slide.instances_request(request), ArtifactStages())


@stage("measure", _named("measure objects of"))
def measure(request: SlideRequest) -> MeasureReport:
    """Measure all objects, and write the table and its summary page."""
    with slide.naming_places(request):
        return measure_objects(slide.measure_request(request), ArtifactStages())


@stage("report", _named("report of"))
def report(request: SlideRequest, location: str, seconds: Mapping[str, float]) -> str:
    """Write the report; return "" if it could not be written."""
    with slide.naming_places(request):
        return try_report(location, request.segment.options.name, seconds)
