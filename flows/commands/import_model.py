"""The command that makes a foreign network one that `segment` runs: import-model."""

from typing import Annotated

import typer

from segment_slide.flows.commands.console import console
from segment_slide.flows.commands.derive import Chosen, with_options
from segment_slide.unet.importing.options import ImportOptions

commands = typer.Typer()


@commands.command("import-model")
@with_options
def import_model(
    path: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="An ONNX file, or a package of the BioImage Model Zoo (folder or zip) that holds one."
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", metavar="NAME.onnx", help="File to write.")],
    chosen: Chosen[ImportOptions],
) -> None:
    """Measure how a foreign network must be tiled, and write a model for `segment`.

    Stride, context and sizes are measured, not taken from the description. Then tiles of three sizes are compared with
    the whole image; a network whose tiles give another result is refused.
    """
    from segment_slide.flows.show.networks import show_imported
    from segment_slide.unet.importing.run import import_network

    with console.status("Measuring the network") as status:
        imported = import_network(
            path, output, chosen.make(), lambda passes: status.update(f"Measuring the network: {passes} passes")
        )
    show_imported(console, imported)
