"""The command line: ``segment-slide COMMAND``; each command is a thin call of what a flow calls.

Exit codes: 0 done; 1 a fault of ours (with traceback); 2 the request cannot be carried out, nothing was changed; 3 some
blocks were left undone, the same command goes on; 130 interrupted (Ctrl-C) and 143 ended (SIGTERM), likewise.
"""

import logging
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from segment_slide.cluster.errors import ClusterError
from segment_slide.flows.commands import evaluate, segment_new, training, view
from segment_slide.flows.commands.cluster import commands as cluster_commands
from segment_slide.flows.commands.instances import commands as instances_commands
from segment_slide.flows.commands.instances import number
from segment_slide.flows.commands.measure import commands as measure_commands
from segment_slide.flows.commands.measure import measure_all
from segment_slide.flows.commands.options import BlockTimeLimit, Cluster
from segment_slide.flows.commands.report import commands as report_commands
from segment_slide.flows.parsing import parse_ranges, split
from segment_slide.flows.show.info import show_info, show_ingest, show_plan, show_report
from segment_slide.pipeline.errors import IncompleteError, PipelineError
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.unet.errors import UnetError

app = typer.Typer(
    name="segment-slide",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Segment microscopy slides and volumes of any size with a U-Net: the whole image's result, tile by tile.",
)
# Where nobody looks at a terminal of 80 columns, a sum or a path stays on its line.
console = Console(width=None if sys.stdout.isatty() else 200)
errors = Console(stderr=True)

EXIT_REFUSED, EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_TERMINATED = 2, 3, 130, 143

Input = Annotated[
    str, typer.Argument(metavar="INPUT", help="Image: an OME-Zarr (0.4 or 0.5) or Zarr array; path or URL.")
]
Model = Annotated[str, typer.Option("--model", "-m", metavar="CKPT", help="Trained network (.safetensors).")]
Name = Annotated[str, typer.Option(help="Name of the label image in the output.")]
Level = Annotated[int, typer.Option(help="Resolution level of the input, 0 is the finest.")]
Axes = Annotated[str | None, typer.Option(help="Axes of a bare Zarr array, one letter per dimension: yx, cyx, zyx …")]
Channels = Annotated[
    str | None, typer.Option(help="Channels for the network, in its order: names or numbers, as DAPI,2.")
]
TRange = Annotated[
    str | None, typer.Option("--t", help="Time points: 3 (one) or 2:10 (from 2 up to, not including, 10).")
]
ZRange = Annotated[str | None, typer.Option("--z", help="Planes, for a 2D network: 3 or 2:10.")]
Block = Annotated[
    int | None, typer.Option(help="Pixels per side of one task and one output file (by default 2048; 256 in 3D).")
]
Tile = Annotated[
    int | None, typer.Option(help="Pixels per side of one pass of the network (by default what memory suits).")
]
Precision = Annotated[
    str, typer.Option(help="auto, float32, or bfloat16 (several times faster where hardware has it).")
]
Tta = Annotated[
    str, typer.Option(help="none, or flips: average over mirrored versions; better borders, 4 times the work.")
]
Probabilities = Annotated[str, typer.Option(help="Store class probabilities too: none, uint8 (0-255) or float32.")]
SkipBackground = Annotated[bool, typer.Option("--skip-background", help="Leave out blocks that hold only glass.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes on this machine (by default one per four cores).")]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu or cuda.")]


@app.command()
def segment(
    input: Input,
    model: Model,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", help="Result, by convention NAME.ome.zarr.")
    ] = "",
    name: Name = "segmentation",
    block: Block = None,
    tile: Tile = None,
    workers: Workers = None,
    cluster: Cluster = "local",
    block_time_limit: BlockTimeLimit = None,
    level: Level = 0,
    channels: Channels = None,
    axes: Axes = None,
    t: TRange = None,
    z: ZRange = None,
    precision: Precision = "auto",
    tta: Tta = "none",
    probabilities: Probabilities = "none",
    skip_background: SkipBackground = False,
    device: Device = "auto",
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Write into INPUT's own labels/ instead of --output.")
    ] = False,
    input_repaired: Annotated[
        bool,
        typer.Option("--input-repaired", help="Go on after damaged chunks of INPUT were replaced; the rest stays."),
    ] = False,
    instances: Annotated[
        bool, typer.Option("--instances", help="Number the objects too, as `segment-slide instances` does.")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Number and measure the objects too, as `segment-slide measure` does.")
    ] = False,
) -> None:
    """Segment an image into an OME-Zarr of labels.

    Interrupted or killed? Run the same command again: it goes on where it stopped.
    """
    from segment_slide.flows.instances import InstancesRequest
    from segment_slide.flows.measure import MeasureRequest
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.segment import segment_image
    from segment_slide.flows.segment_request import SegmentRequest
    from segment_slide.flows.workers import sharing_workers

    where: dict[str, Any] = {"workers": workers, "cluster": cluster, "block_time_limit_s": block_time_limit}
    request = SegmentRequest(
        input=input,
        model=model,
        output=output,
        options=_options(name, block, tile, precision, tta, probabilities, skip_background),
        level=level,
        axes=axes,
        channels=split(channels),
        ranges=parse_ranges(t=t, z=z),
        device=device,
        in_place=in_place,
        input_repaired=input_repaired,
        **where,
    )
    with sharing_workers():
        report = segment_image(request, RichStages(console))
        show_report(console, report)
        if instances or measure:
            number(InstancesRequest(report.location, name, **where))
        if measure:
            measure_all(MeasureRequest(report.location, name, **where))


@app.command()
def plan(
    input: Input,
    model: Model,
    block: Block = None,
    tile: Tile = None,
    workers: Workers = None,
    cluster: Cluster = "local",
    level: Level = 0,
    channels: Channels = None,
    axes: Axes = None,
    t: TRange = None,
    z: ZRange = None,
    precision: Precision = "auto",
    tta: Tta = "none",
    probabilities: Probabilities = "none",
    device: Device = "auto",
) -> None:
    """Say what segmenting an image would take: blocks, files, memory per worker, operations. Changes nothing."""
    from segment_slide.flows.segment_request import SegmentRequest, plan_request

    request = SegmentRequest(
        input=input,
        model=model,
        options=_options("segmentation", block, tile, precision, tta, probabilities, skip_background=False),
        level=level,
        axes=axes,
        channels=split(channels),
        ranges=parse_ranges(t=t, z=z),
        device=device,
        workers=workers,
        cluster=cluster,
    )
    show_plan(console, *plan_request(request))


@app.command()
def ingest(
    input: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="TIFF, OME-TIFF, SVS, NDPI, PNG …; a folder or list of pages."),
    ],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="OME-Zarr to make, by convention NAME.ome.zarr.")],
    series: Annotated[
        int | None, typer.Option(help="Which image of a file that holds several (by default the largest).")
    ] = None,
    axes: Annotated[str | None, typer.Option(help="Axes of a TIFF that does not say them, as zyx or czyx.")] = None,
    stack: Annotated[str, typer.Option(help="What the pages of a folder or list are: z, t or c.")] = "z",
    pixel_size: Annotated[
        float | None, typer.Option(help="Pixel size in y and x (um), instead of what the file says.")
    ] = None,
    z_step: Annotated[
        float | None, typer.Option(help="Distance of planes (um), instead of what the file says.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the image (by default the file's).")] = None,
) -> None:
    """Convert a slide, an image or a stack of pages to OME-Zarr with a pyramid.

    Interrupted or killed? Run the same command again: it goes on where it stopped.
    """
    from segment_slide.flows.ingest import ingest_image
    from segment_slide.flows.progress import RichStages
    from segment_slide.pipeline.ingest.run import IngestOptions

    sizes = {"y": pixel_size, "x": pixel_size, "z": z_step}
    options = IngestOptions(
        series=series,
        axes=axes,
        stack_axis=stack,
        pixel_size={axis: size for axis, size in sizes.items() if size is not None},
        name=name,
    )
    show_ingest(console, ingest_image(input, output, options, RichStages(console)))


@app.command()
def info(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="An image, a segmentation, a checkpoint, a training set or samples.")
    ],
) -> None:
    """Say what lies at a path: an image, a segmentation and how far it is, a checkpoint, training data."""
    show_info(console, path)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the demo's files.")] = Path("demo-output"),
) -> None:
    """Draw a synthetic slide, train a small network on a few patches, segment the slide, and score it."""
    from segment_slide.flows.demo.run import run_demo

    run_demo(output)


app.add_typer(instances_commands)
app.add_typer(measure_commands)
app.add_typer(report_commands)
app.add_typer(view.commands)
app.add_typer(segment_new.commands)
app.add_typer(training.commands)
app.add_typer(evaluate.commands)
app.add_typer(cluster_commands, name="cluster")


def _options(
    name: str, block: int | None, tile: int | None, precision: str, tta: str, probabilities: str, skip_background: bool
) -> SegmentOptions:
    return SegmentOptions(
        name=name,
        block=block,
        tile=tile,
        precision=None if precision == "auto" else precision,
        tta=tta,
        probabilities=probabilities,
        skip_background=skip_background,
    )


def main() -> None:
    """Entry point: run a command, turn errors that a person can mend into a sentence and an exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except IncompleteError as error:
        _say(f"[bold red]Not complete:[/] {escape(str(error))}")
        _say("Run the same command again to go on.")
        sys.exit(EXIT_INCOMPLETE)
    except (PipelineError, UnetError, ClusterError) as error:
        _say(f"[bold red]Error:[/] {escape(str(error))}")
        sys.exit(EXIT_REFUSED)
    except SystemExit as error:
        if error.code in (EXIT_INTERRUPTED, EXIT_TERMINATED):
            _say("Interrupted. What is done is kept: run the same command again to go on.")
        raise


def _terminate(number: int, _: object) -> NoReturn:
    """End as after Ctrl-C, workers first: a batch system asks by SIGTERM before it kills."""
    raise SystemExit(128 + number)


def _say(sentence: str) -> None:
    """One line on standard error however narrow the terminal: paths in it can be copied and searched."""
    errors.print(sentence, highlight=False, soft_wrap=True)
