"""What the commands print of imported networks."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from segment_slide.flows.show.tables import _sizes_um, make_table
from segment_slide.pipeline.blocks.memory import format_bytes

if TYPE_CHECKING:
    from segment_slide.unet.engines.onnx_network import OnnxNetwork
    from segment_slide.unet.importing.run import Imported


def show_network(console: Console, network: "OnnxNetwork") -> None:
    """Print what was measured of a network, and what it expects."""
    config = network.config
    locality, cost, normalisation = config.locality, config.cost, config.normalisation
    rows = {
        "from": f"{config.source.name} ({config.source.kind}), sha256 {config.source.sha256[:12]}…",
        "input": f"{locality.in_channels} channel(s) {', '.join(config.channel_names)}, {len(locality.axes)}D".strip(),
        "classes": ", ".join(f"{value} {name}" for value, name in enumerate(config.classes)),
        "output": f"{config.meaning}, {locality.out_channels} channel(s)",
        "normalisation": f"{normalisation.kind} {normalisation.offset or ''} {normalisation.scale or ''}".rstrip(),
        "pixel size": f"{_sizes_um(config.pixel_size_um)}",
        "stride": ", ".join(f"{axis.stride} px" for axis in locality.axes),
        "context": ", ".join(f"{axis.before} before, {axis.after} after" for axis in locality.axes) + " px",
        "halo": ", ".join(f"{axis.halo} px" for axis in locality.axes),
        "tiles": "give the bits of the whole image"
        if locality.is_bit_equal
        else "give the whole image's result up to rounding",
        "cost": f"{cost.n_parameters:,} parameters, {cost.flops_per_px / 1e3:,.1f} kFLOP and "
        f"{format_bytes(int(cost.bytes_per_px))} per pixel",
        "measured with": f"{config.runtime}, probe {config.probe_version}",
        "sha256": network.sha256,
    }
    console.print(make_table(f"Network {network.path}", rows))


def show_imported(console: Console, imported: "Imported") -> None:
    """Print what was imported, and what to do next."""
    show_network(console, imported.network)
    for note in imported.notes:
        console.print(f"Note: {escape(note)}.", highlight=False)
    console.print(
        f"Next: segment-slide segment SLIDE -m {escape(imported.network.path.name)} -o OUT.ome.zarr",
        highlight=False,
        soft_wrap=True,
    )
