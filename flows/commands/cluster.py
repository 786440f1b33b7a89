"""The command that checks a cluster before it is used: cluster check."""

from typing import Annotated

import typer

from segment_slide.cluster.table import STARTED
from segment_slide.flows.commands.console import console

commands = typer.Typer(no_args_is_help=True, help="Check the machines that do the work.")


@commands.callback()
def _group() -> None:
    """Check the machines that do the work."""


@commands.command()
def check(
    cluster: Annotated[
        str,
        typer.Argument(metavar="WHERE", help=f"{', '.join(STARTED)}, an address like tls://host:port, or a YAML file."),
    ],
    input: Annotated[str | None, typer.Option(help="An image that workers must be able to read.")] = None,
    output: Annotated[str | None, typer.Option(help="A folder that workers must be able to write into.")] = None,
    model: Annotated[str | None, typer.Option(help="A network that workers must be able to read.")] = None,
    axes: Annotated[str | None, typer.Option(help="Axes of the image, if it is a bare Zarr array: e.g. yx.")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of worker processes on this machine, or of jobs.")] = None,
    allow_unencrypted: Annotated[
        bool,
        typer.Option("--allow-unencrypted", help="Join an address with tcp://; only where nobody else can reach it."),
    ] = False,
) -> None:
    """Start the workers, check each of them, and end them. Report for each worker what would make a run fail."""
    from segment_slide.flows.check_cluster import CheckRequest, check_cluster
    from segment_slide.flows.requests import Workers
    from segment_slide.flows.show.tables import show_cluster

    request = CheckRequest(
        Workers(workers, cluster, allow_unencrypted=allow_unencrypted),
        input=input,
        output=output,
        model=model,
        axes=axes,
    )
    show_cluster(console, check_cluster(request))
