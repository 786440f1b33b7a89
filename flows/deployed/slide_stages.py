"""The stages of one slide as Prefect tasks; each calls what the command line calls."""

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
    """Microscope's file to OME-Zarr, if it is none yet."""
    return slide.convert(request, ArtifactStages())


@stage("segment", _named("segment"))
def segment(request: SlideRequest) -> SegmentReport:
    """Classes of all pixels: plan, connect, normalise, segment, pyramid."""
    return segment_image(slide.segment_request(request), ArtifactStages())


@stage("number", _named("number objects of"))
def number(request: SlideRequest) -> InstancesReport:
    """Ids of all objects, and their pyramid."""
    return label_objects(slide.instances_request(request), ArtifactStages())


@stage("measure", _named("measure objects of"))
def measure(request: SlideRequest) -> MeasureReport:
    """The table of objects, and its page."""
    return measure_objects(slide.measure_request(request), ArtifactStages())


@stage("report", _named("report of"))
def report(request: SlideRequest, location: str, seconds: Mapping[str, float]) -> str:
    """The page about it; "" if it could not be made."""
    return try_report(location, request.segment.options.name, seconds)
