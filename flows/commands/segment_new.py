"""The command that segments what is new in a folder: segment-new; for cron, a systemd timer, or whoever runs it."""

import sys
import time
from typing import Annotated

import typer
from rich.console import Console

from segment_slide.flows.commands.options import Cluster

commands = typer.Typer()
console = Console(width=None if sys.stdout.isatty() else 200)

EXIT_NEEDS_OPERATOR = 3


@commands.command()
def segment_new(
    watch: Annotated[str, typer.Argument(metavar="WATCH", help="Folder or URL that acquisitions arrive in.")],
    outputs: Annotated[
        str, typer.Option("--outputs", "-o", metavar="DIR", help="Folder or URL for the results of all models.")
    ],
    model: Annotated[str, typer.Option("--model", "-m", metavar="CKPT", help="Trained network (.safetensors).")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    stable_minutes: Annotated[
        float, typer.Option(help="An acquisition is complete when it has not changed for so long.")
    ] = 10.0,
    marker: Annotated[
        str | None,
        typer.Option(
            help="It is complete when this file is there instead: {name}.done or {stem}.done beside it, or a "
            "name in its folder."
        ),
    ] = None,
    max_tries: Annotated[int, typer.Option(help="Failures after which an acquisition is set aside.")] = 3,
    max_age_days: Annotated[
        float | None, typer.Option(help="Leave alone what has not changed for longer and was never begun.")
    ] = None,
    pattern: Annotated[
        list[str] | None, typer.Option(help="Only names that match, as '*.svs'; may be given several times.")
    ] = None,
    block: Annotated[int | None, typer.Option(help="As of `segment`: pixels per side of one task and file.")] = None,
    tile: Annotated[int | None, typer.Option(help="As of `segment`: pixels per side of one forward pass.")] = None,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu or cuda.")] = "auto",
    no_instances: Annotated[bool, typer.Option("--no-instances", help="Number and measure no objects.")] = False,
    no_measure: Annotated[bool, typer.Option("--no-measure", help="Measure no objects.")] = False,
    workers: Annotated[int | None, typer.Option(help="Worker processes on this machine.")] = None,
    cluster: Cluster = "local",
) -> None:
    """Segment every acquisition in a folder that is complete and was not segmented with this model yet.

    Run it as often as you like: the outputs say what is done, what failed too often is set aside, and what was
    interrupted goes on. Exit code 3 if an acquisition failed, or needs a decision that no night before asked for.
    """
    from segment_slide.flows.nights.plan import Decision, NightRequest, plan_night
    from segment_slide.flows.nights.report import NightReport
    from segment_slide.flows.nights.run import segment_new
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.segment_request import SegmentRequest
    from segment_slide.flows.show.night import show_begin, show_decisions, show_failure, show_night
    from segment_slide.flows.slide import SlideReport, SlideRequest, process_slide
    from segment_slide.flows.workers import sharing_workers
    from segment_slide.pipeline.objects.options import InstanceOptions
    from segment_slide.pipeline.segmentation.options import SegmentOptions

    options = SegmentOptions(block=block, tile=tile, precision=None if precision == "auto" else precision)
    request = NightRequest(
        watch=watch,
        outputs=outputs,
        template=SlideRequest(
            SegmentRequest("", model, options=options, device=device, workers=workers, cluster=cluster),
            objects=None if no_instances else InstanceOptions(),
            measure=not no_measure,
        ),
        patterns=tuple(pattern or ()),
        stable_minutes=stable_minutes,
        marker=marker,
        max_tries=max_tries,
        max_age_days=max_age_days,
    )
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
