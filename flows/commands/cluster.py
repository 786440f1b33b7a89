"""The command that looks at a cluster before anybody relies on it: cluster check."""

from typing import Annotated

import typer

from segment_slide.cluster.table import STARTED
from segment_slide.flows.commands.console import console

commands = typer.Typer(no_args_is_help=True, help="Where work runs.")


@commands.callback()
def _group() -> None:
    """Where work runs."""


@commands.command()
def check(
    cluster: Annotated[
        str,
        typer.Argument(metavar="WHERE", help=f"{', '.join(STARTED)}, an address as tls://host:port, or a YAML file."),
    ],
    input: Annotated[str | None, typer.Option(help="An image that workers must be able to read.")] = None,
    output: Annotated[str | None, typer.Option(help="A folder that workers must be able to write into.")] = None,
    model: Annotated[str | None, typer.Option(help="A network that workers must be able to read.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes on this machine, or jobs.")] = None,
) -> None:
    """Start the workers, look at each, and end them: what a run would stumble over is said by worker."""
    from segment_slide.flows.check_cluster import CheckRequest, check_cluster
    from segment_slide.flows.requests import Workers
    from segment_slide.flows.show.tables import show_cluster

    request = CheckRequest(Workers(workers, cluster), input=input, output=output, model=model)
    show_cluster(console, check_cluster(request))
