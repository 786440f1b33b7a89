"""The flow ``prepare-weight-maps``: make a training set of annotated images, with classes and weights of pixels."""

from prefect import flow

from segment_slide.flows.deployed.operate import (
    check_given,
    having_the_machine,
    last_name,
    limited,
    name_flow_run,
    saying_how_to_go_on,
    stage,
)
from segment_slide.flows.deployed.parameters import (
    ALLOW_UNENCRYPTED,
    BLOCK_TIME_LIMIT,
    CLUSTER,
    STAGE_HOURS,
    WORKERS,
    Count,
    Hours,
    Text,
)
from segment_slide.flows.deployed.reports import publish_rows
from segment_slide.flows.deployed.stages import ArtifactStages
from segment_slide.flows.deployed.training_parameters import (
    IMAGES,
    LABELS,
    SET,
    AnnotationParameters,
    Paths,
    WeightParameters,
)
from segment_slide.flows.requests import Workers
from segment_slide.flows.show.training import weight_maps_rows
from segment_slide.flows.training_requests import WeightMapsRequest
from segment_slide.flows.weight_maps import WeightMapsReport, make_weight_maps, plan_request
from segment_slide.pipeline.training.options import AnnotationInput, WeightOptions
from segment_slide.unet.options import make_options


@stage("weigh", lambda request: f"weight maps into {last_name(request.output)}")
def weigh(request: WeightMapsRequest) -> WeightMapsReport:
    """Ingest images, find objects, count classes, create the training set, compute the weights."""
    return make_weight_maps(request, ArtifactStages())


@flow(name="prepare-weight-maps", flow_run_name=name_flow_run("weight maps → {output}"), persist_result=False)
def prepare_weight_maps(
    images: Paths = IMAGES,
    output: Text = SET,
    labels: list[str] = LABELS,
    annotation: AnnotationParameters = AnnotationParameters(),
    weights: WeightParameters = WeightParameters(),
    cluster: Text = CLUSTER,
    workers: Count | None = WORKERS,
    block_time_limit: Count | None = BLOCK_TIME_LIMIT,
    allow_unencrypted: bool = ALLOW_UNENCRYPTED,
    stage_hours: Hours | None = STAGE_HOURS,
) -> WeightMapsReport:
    """Make a training set of annotated images: classes and the weight of each pixel (Ronneberger 2015, Eq. 2).

    If the flow was interrupted, failed or was cancelled, run it again with the same parameters. It resumes where it
    stopped.
    """
    check_given(images=images, output=output)
    request = WeightMapsRequest(
        output,
        make_options(AnnotationInput, annotation.chosen(), images=tuple(images), labels=tuple(labels)),
        make_options(WeightOptions, annotation.chosen() | weights.chosen()),
        Workers(workers, cluster, block_time_limit, allow_unencrypted),
    )
    plan_request(request)  # refuses a bad request before any work
    with saying_how_to_go_on(), having_the_machine(cluster):
        report = limited(weigh, stage_hours)(request)
    publish_rows(output, "Training set", weight_maps_rows(report))
    return report
