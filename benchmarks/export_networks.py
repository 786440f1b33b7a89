"""Write the small ONNX networks of other programs that the tests import: narrow variants with seeded random weights.

    pip install monai onnx onnxscript
    python benchmarks/export_networks.py tests/data/networks

Run it again after an update of these programs, and look at what the tests then say.
"""

import argparse
from pathlib import Path

import onnx
import torch
from monai.networks.nets import BasicUNet, UNet
from torch import nn

BATCH, INSTANCE = "batch", "instance"


def networks() -> dict[str, tuple[nn.Module, int, int]]:
    """Network, spatial axes, and size (px) of the image that it is exported with."""
    return {
        "monai_unet_2d": (UNet(2, 1, 3, (4, 8, 16), (2, 2), num_res_units=1, norm=BATCH), 2, 64),
        "monai_basicunet_2d": (BasicUNet(2, 1, 2, features=(2, 2, 4, 4, 4, 2), norm=BATCH), 2, 64),
        "monai_unet_3d": (UNet(3, 1, 2, (2, 4, 8), (2, 2), norm=BATCH), 3, 32),
        "monai_basicunet_3d": (BasicUNet(3, 1, 2, features=(2, 2, 2, 2, 2, 2), norm=BATCH), 3, 32),
        "monai_unet_instance": (UNet(2, 1, 2, (4, 8), (2,), norm=INSTANCE), 2, 64),
    }


def export(network: nn.Module, ndim: int, size: int, path: Path) -> None:
    """Write a network without the notes of the exporter, which hold paths of this computer."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    free = dict.fromkeys(range(2, 2 + ndim), torch.export.Dim.DYNAMIC)
    torch.onnx.export(
        network.eval(), (torch.randn(1, 1, *[size] * ndim),), path, dynamic_shapes=(free,), external_data=False
    )
    model = onnx.load(path)
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        item.doc_string = ""
        del item.metadata_props[:]
    onnx.save(model, path)


def main() -> None:
    """Export all networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for name, (network, ndim, size) in networks().items():
        export(network, ndim, size, folder / f"{name}.onnx")


if __name__ == "__main__":
    main()
