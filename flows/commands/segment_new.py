"""The command that segments new acquisitions in a folder: segment-new. Cron or a systemd timer may run it."""

import time
from typing import Annotated

import typer

from segment_slide.flows.commands.console import console
from segment_slide.flows.commands.derive import Chosen, Group, with_options
from segment_slide.flows.requests import NightRequest, SegmentRequest
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.objects.options import InstanceOptions

commands = typer.Typer()


EXIT_NEEDS_OPERATOR = 3


@commands.command()
@with_options
def segment_new(
    watch: Annotated[str, typer.Argument(metavar="WATCH", help="Folder or URL that acquisitions arrive in.")],
    outputs: Annotated[
        str, typer.Option("--outputs", "-o", metavar="DIR", help="Folder or URL for the results of all models.")
    ],
    model: Annotated[str, typer.Option("--model", "-m", metavar="CKPT", help="Trained network (.safetensors).")],
    chosen: Chosen[NightRequest],
    segmentation: Annotated[
        Chosen[SegmentRequest], Group("Segmentation", without=("output", "in_place", "input_repaired"))
    ],
    objects: Annotated[Chosen[InstanceOptions], Group("Objects", without=("block", "ndim"))],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    no_instances: Annotated[
        bool, typer.Option("--no-instances", help="Do not number the objects, and do not measure them.")
    ] = False,
    no_measure: Annotated[bool, typer.Option("--no-measure", help="Do not measure the objects.")] = False,
) -> None:
    """Segment every acquisition in a folder that is complete and not yet segmented with this model.

    Run it as often as you like. Finished acquisitions are skipped, because the outputs show what is done. Interrupted
    ones resume. Acquisitions that failed too often are set aside. The exit code is 3 if an acquisition failed, or needs
    a decision that no earlier run asked for.
    """
    from segment_slide.flows.nights.plan import Decision, plan_night
    from segment_slide.flows.nights.report import NightReport
    from segment_slide.flows.nights.run import segment_new
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.requests import SlideRequest
    from segment_slide.flows.show.night import show_begin, show_decisions, show_failure, show_night
    from segment_slide.flows.slide import SlideReport, process_slide
    from segment_slide.flows.workers import sharing_workers

    if objects.given and no_instances:
        raise InputError(
            f"{', '.join(objects.given)} was given together with --no-instances; expected one or the other."
        )
    template = SlideRequest(
        segmentation.make(input="", model=model),
        objects=None if no_instances else objects.make(),
        measure=not no_measure,
    )
    request = chosen.make(watch=watch, outputs=outputs, template=template)
    if dry_run:
        show_decisions(console, plan_night(request, time.time()))
        return

    def run_one(slide: SlideRequest, decision: Decision) -> SlideReport:
        show_begin(console, decision)
        return process_slide(slide, RichStages(console))

    def show(report: NightReport) -> None:
        show_night(console, report)

    with sharing_workers():
        report = segment_new(request, run_one, lambda row: show_failure(console, row), on_broken_off=show)
    show(report)
    if report.needs_operator:
        raise typer.Exit(EXIT_NEEDS_OPERATOR)
