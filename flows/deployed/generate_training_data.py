"""The flow ``generate-training-data``: make augmented samples from a training set, on all workers."""

from prefect import flow
from prefect.logging import get_run_logger

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
from segment_slide.flows.deployed.training_parameters import N_SAMPLES, SAMPLES, SET, SampleParameters
from segment_slide.flows.requests import Workers
from segment_slide.flows.samples_plan import prepare_samples
from segment_slide.flows.show.training import training_data_rows
from segment_slide.flows.training_data import TrainingDataReport, make_training_data
from segment_slide.flows.training_requests import TrainingDataRequest
from segment_slide.unet.options import make_options


@stage("draw", lambda request: f"samples into {last_name(request.output)}")
def draw(request: TrainingDataRequest) -> TrainingDataReport:
    """Measure the images, create the sample set, draw the samples."""
    return make_training_data(request, ArtifactStages())


@flow(
    name="generate-training-data",
    flow_run_name=name_flow_run("{training_set} → {output}"),
    persist_result=False,
)
def generate_training_data(
    training_set: Text = SET,
    output: Text = SAMPLES,
    n: Count = N_SAMPLES,
    samples: SampleParameters = SampleParameters(),
    cluster: Text = CLUSTER,
    workers: Count | None = WORKERS,
    block_time_limit: Count | None = BLOCK_TIME_LIMIT,
    allow_unencrypted: bool = ALLOW_UNENCRYPTED,
    stage_hours: Hours | None = STAGE_HOURS,
) -> TrainingDataReport:
    """Draw augmented training samples, elastic deformation included (Ronneberger 2015, Sec. 3.1).

    If the flow was interrupted, failed or was cancelled, run it again with the same parameters. It resumes where it
    stopped.
    """
    check_given(training_set=training_set, output=output)
    request = make_options(
        TrainingDataRequest,
        samples.chosen(),
        training_set=training_set,
        output=output,
        n=n,
        workers=Workers(workers, cluster, block_time_limit, allow_unencrypted),
    )
    prepare_samples(request)  # refuses a bad request before any work
    with saying_how_to_go_on(), having_the_machine(cluster):
        report = limited(draw, stage_hours)(request)
    rows = training_data_rows(report)
    get_run_logger().info("normalised: %s", rows["normalised"])
    publish_rows(output, "Training samples", rows, picture=report.preview)
    return report
