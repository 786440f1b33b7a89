"""The flow ``train-unet``: train a network on samples, by default as in the paper."""

from typing import Literal

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
from segment_slide.flows.deployed.parameters import STAGE_HOURS, Count, Hours, Text
from segment_slide.flows.deployed.reports import publish_rows
from segment_slide.flows.deployed.stages import ArtifactStages
from segment_slide.flows.deployed.training_parameters import CHECKPOINT, DEVICE, PROCESSES, SAMPLES, TrainingParameters
from segment_slide.flows.show.training import train_rows
from segment_slide.flows.train import PICTURE_NAME, TrainReport, train_network
from segment_slide.flows.training_requests import TrainRequest
from segment_slide.unet.options import make_options


@stage("train", lambda request: f"train {last_name(request.output)}")
def train(request: TrainRequest) -> TrainReport:
    """Train and validate; keep the best weights."""
    return train_network(request, ArtifactStages())


@flow(name="train-unet", flow_run_name=name_flow_run("{samples} → {output}"), persist_result=False)
def train_unet(
    samples: Text = SAMPLES,
    output: Text = CHECKPOINT,
    training: TrainingParameters = TrainingParameters(),
    device: Literal["auto", "cpu", "cuda"] = DEVICE,
    processes: Count | None = PROCESSES,
    stage_hours: Hours | None = STAGE_HOURS,
) -> TrainReport:
    """Train a U-Net: weighted loss, He initialisation, SGD with momentum 0.99 (Ronneberger 2015, Sec. 3).

    If the flow was interrupted, failed or was cancelled, run it again with the same parameters. It resumes from the
    last state and ends with the same weights.
    """
    check_given(samples=samples, output=output)
    places = {"samples": samples, "output": output}
    request = make_options(TrainRequest, training.chosen(), **places, device=device, processes=processes)
    with saying_how_to_go_on(), having_the_machine():
        report = limited(train, stage_hours)(request)
    publish_rows(output, "Trained network", train_rows(report), picture=report.folder / PICTURE_NAME)
    return report
