"""The flow ``segment-slide``: process one acquisition from its file to the table of its objects, and report on it."""

import logging
from collections.abc import Mapping

from prefect import flow

from segment_slide.flows.deployed import slide_stages as stages
from segment_slide.flows.deployed.operate import (
    check_given,
    having_the_machine,
    limited,
    name_flow_run,
    saying_how_to_go_on,
)
from segment_slide.flows.deployed.parameters import (
    ALLOW_UNENCRYPTED,
    BLOCK_TIME_LIMIT,
    CLUSTER,
    INPUT,
    MODEL,
    OUTPUT,
    STAGE_HOURS,
    WORKERS,
    ConversionParameters,
    Count,
    Hours,
    ObjectParameters,
    SegmentParameters,
    Text,
)
from segment_slide.flows.deployed.reports import publish_slide
from segment_slide.flows.requests import SegmentRequest, SlideRequest, Workers
from segment_slide.flows.slide import SlideReport, check_request
from segment_slide.flows.workers import sharing_workers
from segment_slide.pipeline.blocks.progress import timed
from segment_slide.pipeline.errors import IncompleteError
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.objects.options import InstanceOptions
from segment_slide.unet.options import make_options

log = logging.getLogger(__name__)

_REPORT_HOURS = 1.0  # a report usually takes minutes; the other slides of a night must not wait longer


@flow(name="segment-slide", flow_run_name=name_flow_run("{input} → {output}"), persist_result=False)
def segment_slide(
    input: Text = INPUT,
    model: Text = MODEL,
    output: Text = OUTPUT,
    cluster: Text = CLUSTER,
    workers: Count | None = WORKERS,
    block_time_limit: Count | None = BLOCK_TIME_LIMIT,
    allow_unencrypted: bool = ALLOW_UNENCRYPTED,
    segmentation: SegmentParameters = SegmentParameters(),
    objects: ObjectParameters | None = ObjectParameters(),
    conversion: ConversionParameters = ConversionParameters(),
    stage_hours: Hours | None = STAGE_HOURS,
) -> SlideReport:
    """Segment an image, number and measure its objects, and report what was found.

    If the flow was interrupted, failed or was cancelled, run it again with the same parameters. It resumes where it
    stopped.
    """
    check_given(input=input, model=model, output=output)
    where = Workers(workers, cluster, block_time_limit, allow_unencrypted)
    request = make_request(input, model, output, where, segmentation, objects, conversion)
    check_request(request)
    clock: dict[str, float] = {}
    with saying_how_to_go_on(), having_the_machine(cluster), sharing_workers():
        with timed(clock, "convert"):
            converted = limited(stages.convert, stage_hours)(request)
        with timed(clock, "segment"):
            segmented = limited(stages.segment, stage_hours)(request)
        with timed(clock, "number"):
            numbered = limited(stages.number, stage_hours)(request) if request.objects else None
        with timed(clock, "measure"):
            measured = limited(stages.measure, stage_hours)(request) if request.objects and request.measure else None
    page = _report(request, segmented.location, clock, stage_hours)
    report = SlideReport(converted, segmented, numbered, measured, clock, page)
    publish_slide(request, report)
    return report


def _report(request: SlideRequest, location: str, clock: Mapping[str, float], stage_hours: float | None) -> str:
    """Write the report. If that takes too long, the report is left out and the segmentation is kept."""
    try:
        return limited(stages.report, min(stage_hours or _REPORT_HOURS, _REPORT_HOURS))(request, location, clock)
    except IncompleteError as error:
        log.warning("the report of %s is left out: %s", location, error)
        return ""


def make_request(
    input: str,
    model: str,
    output: str,
    workers: Workers,
    segmentation: SegmentParameters,
    objects: ObjectParameters | None,
    conversion: ConversionParameters,
) -> SlideRequest:
    """Make the stages' request from the flow's parameters."""
    places = {"input": input, "model": model, "output": output}
    return SlideRequest(
        make_options(SegmentRequest, segmentation.chosen(), **places, workers=workers),
        image=conversion.image,
        ingest=make_options(IngestOptions, conversion.chosen()),
        objects=None if objects is None else make_options(InstanceOptions, objects.chosen()),
        measure=objects is not None and objects.measure,
    )
