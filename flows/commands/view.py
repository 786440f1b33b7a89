"""The command that shows a segmentation in the browser: view."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from segment_slide.flows.commands.console import console
from segment_slide.flows.show.wording import in_options
from segment_slide.pipeline.errors import InputError

commands = typer.Typer()


@commands.command()
def view(
    output: Annotated[
        str, typer.Argument(metavar="OUT.ome.zarr", help="Output of a segmentation, or an image; path or URL.")
    ],
    image: Annotated[
        str | None, typer.Option(help="Image to show below the labels (by default the one that was segmented).")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Label image to show (by default all).")] = None,
    port: Annotated[int, typer.Option(help="Port on this machine (by default a free one).")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    export: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the viewer and all that it shows into a folder for a web server."),
    ] = None,
    hard_links: Annotated[
        bool,
        typer.Option(
            "--hard-links",
            help="With --export: link files on the same disk instead of copying them. Only for stores whose files are "
            "replaced and never changed in place; outputs of segment-slide are such stores.",
        ),
    ] = False,
) -> None:
    """Show an image with its labels in the browser until Ctrl-C, or write the viewer into a folder.

    Only this machine can reach the viewer. Over SSH the command prints which tunnel to open.
    """
    from segment_slide.flows.view import export_view, show_view
    from segment_slide.pipeline.viewer.describe import describe_view

    if hard_links and export is None:
        raise InputError("--hard-links was given without --export; expected both, or neither.")
    if export is not None and (port or no_browser):
        raise InputError("--export was given together with --port or --no-browser; expected one or the other.")
    site = describe_view(output, image=image, name=name)
    site = replace(site, notes=tuple(map(in_options, site.notes)))
    if export is None:
        show_view(console, site, port=port, browse=not no_browser)
    else:
        export_view(console, site, export, hard_links=hard_links)
