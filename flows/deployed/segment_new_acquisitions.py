"""The flow ``segment-new-acquisitions``: every night, segment new and complete acquisitions, once for each model."""

import time
from typing import Any

import httpx
from prefect import flow
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from pydantic import Field

from segment_slide.flows.deployed.night_reports import publish_decisions, publish_night, summarise
from segment_slide.flows.deployed.operate import check_given, having_the_machine, name_flow_run
from segment_slide.flows.deployed.parameters import (
    ALLOW_UNENCRYPTED,
    BLOCK_TIME_LIMIT,
    CLUSTER,
    MODEL,
    STAGE_HOURS,
    WORKERS,
    ConversionParameters,
    Count,
    Hours,
    ObjectParameters,
    SegmentParameters,
    Text,
    WatchParameters,
)
from segment_slide.flows.deployed.segment_slide import make_request, segment_slide
from segment_slide.flows.nights.errors import causes
from segment_slide.flows.nights.plan import Decision, plan_night
from segment_slide.flows.nights.report import NightReport, NightRow
from segment_slide.flows.nights.run import segment_new
from segment_slide.flows.requests import NightRequest, SlideRequest, Workers
from segment_slide.flows.slide import SlideReport
from segment_slide.flows.workers import sharing_workers
from segment_slide.pipeline.errors import PipelineError
from segment_slide.unet.options import make_options


@flow(name="segment-new-acquisitions", flow_run_name=name_flow_run("new in {watch}"), persist_result=False)
def segment_new_acquisitions(
    watch: Text = Field(description="Folder or URL that acquisitions arrive in."),
    outputs: Text = Field(description="Folder or URL for the results."),
    model: Text = MODEL,
    dry_run: bool = Field(False, description="Only list what would be done, and why."),
    watching: WatchParameters = WatchParameters(),
    cluster: Text = CLUSTER,
    workers: Count | None = WORKERS,
    block_time_limit: Count | None = BLOCK_TIME_LIMIT,
    allow_unencrypted: bool = ALLOW_UNENCRYPTED,
    segmentation: SegmentParameters = SegmentParameters(),
    objects: ObjectParameters | None = ObjectParameters(),
    conversion: ConversionParameters = ConversionParameters(),
    stage_hours: Hours | None = STAGE_HOURS,
) -> Any:
    """Segment acquisitions that are new and complete. The outputs themselves show which acquisitions are done.

    The flow run fails if somebody has to act: an acquisition failed in this night, or needs a decision that no earlier
    night asked for. What was set aside or asked earlier is only listed.
    """
    check_given(watch=watch, outputs=outputs, model=model)
    where = Workers(workers, cluster, block_time_limit, allow_unencrypted)
    template = make_request("", model, "", where, segmentation, objects, conversion)
    request = make_options(NightRequest, watching.chosen(), watch=watch, outputs=outputs, template=template)
    logger = get_run_logger()

    def run_one(slide: SlideRequest, _decision: Decision) -> SlideReport:
        return segment_slide(
            input=slide.segment.input,
            model=model,
            output=slide.segment.output,
            cluster=cluster,
            workers=workers,
            block_time_limit=block_time_limit,
            allow_unencrypted=allow_unencrypted,
            segmentation=segmentation,
            objects=objects,
            conversion=conversion.model_copy(update={"image": slide.image}),
            stage_hours=stage_hours,
        )

    def tell(row: NightRow) -> None:
        logger.info("%s: %s (%s)", row.name, row.outcome, row.reason)

    def publish(report: NightReport) -> None:
        publish_night(report, watch)

    if dry_run:
        decisions = plan_night(request, time.time())
        publish_decisions(decisions, watch)
        n_work = sum(decision.is_work for decision in decisions)
        return Completed(message=f"{n_work} of {len(decisions)} acquisitions would be segmented; nothing was changed")
    with having_the_machine(cluster), sharing_workers():
        report = segment_new(request, run_one, tell, is_infrastructure=is_outage, on_broken_off=publish)
    publish(report)
    return (Failed if report.needs_operator else Completed)(message=summarise(report))


def is_outage(error: Exception) -> bool:
    """Whether Prefect failed, not a stage. Errors of a stage come out of its flow unchanged."""
    for cause in causes(error):
        if isinstance(cause, PipelineError):
            return False
        # HTTPError includes answers with an error status
        if isinstance(cause, httpx.HTTPError | PrefectException | ConcurrencySlotAcquisitionError):
            return True
    return False
