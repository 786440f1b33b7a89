"""What is counted without the network, against the network."""

import json
import subprocess
import sys
import weakref
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.errors import GeometryError
from segment_slide.unet.model import UNet

CONFIGURATIONS = [
    Architecture(base_channels=1, depth=1),
    Architecture(n_classes=255, base_channels=1, depth=1),  # the scores are the peak
    Architecture(in_channels=3, n_classes=5, base_channels=2, depth=2),
    Architecture(base_channels=8, depth=3),
    Architecture(in_channels=2, base_channels=64, depth=4),
    Architecture(base_channels=4, depth=5),
    Architecture(base_channels=1, depth=1, ndim=3),
    Architecture(in_channels=3, n_classes=100, base_channels=2, depth=2, ndim=3),
    Architecture(base_channels=16, depth=3, ndim=3),
]
CONVOLUTIONS = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d


def names(architecture):
    return (
        f"{architecture.ndim}d-depth{architecture.depth}-base{architecture.base_channels}"
        f"-{architecture.in_channels}to{architecture.n_classes}"
    )


every_configuration = pytest.mark.parametrize("architecture", CONFIGURATIONS, ids=names)


def tile_of(architecture):
    """A tile of a different size on each axis."""
    return tuple(architecture.geometry.stride * (2 + axis) for axis in range(architecture.ndim))


def shapes_only(architecture, dtype=torch.float32):
    """The network and an input that have shapes but no memory."""
    sizes = [architecture.geometry.read_size(size) for size in tile_of(architecture)]
    with torch.device("meta"):
        model = UNet(architecture).eval()
        for part in (model.down, model.up, model.merge):
            part.to(dtype)
        return model, torch.empty(1, architecture.in_channels, *sizes, dtype=dtype)


@every_configuration
def test_parameters_are_counted_as_the_real_network_has_them(architecture):
    model, _ = shapes_only(architecture)
    assert architecture.n_parameters == sum(parameter.numel() for parameter in model.parameters())


@every_configuration
def test_convolutions_are_counted_as_the_real_network_has_them(architecture):
    model, _ = shapes_only(architecture)
    assert architecture.n_convolutions == sum(isinstance(module, CONVOLUTIONS) for module in model.modules())


def test_the_papers_network_has_31030658_parameters_and_23_convolutions():
    model, _ = shapes_only(Architecture())
    assert sum(parameter.numel() for parameter in model.parameters()) == 31_030_658
    assert sum(isinstance(module, CONVOLUTIONS) for module in model.modules()) == 23


@every_configuration
def test_operations_are_counted_as_torch_counts_them(architecture):
    model, image = shapes_only(architecture)
    with FlopCounterMode(display=False) as counter:
        model(image)
    assert architecture.forward_flops(tile_of(architecture)) == counter.get_total_flops() > 0


class LiveTensors(TorchDispatchMode):
    """Bytes of all tensors that are alive at one moment, at most; views count once."""

    def __init__(self):
        super().__init__()
        self.peak_bytes = 0
        self._references = Counter()
        self._bytes = {}

    def track(self, tensor):
        storage = tensor.untyped_storage()
        self._references[storage._cdata] += 1
        self._bytes[storage._cdata] = storage.nbytes()
        weakref.finalize(tensor, self._references.subtract, [storage._cdata])
        alive = sum(self._bytes[key] for key, count in self._references.items() if count > 0)
        self.peak_bytes = max(self.peak_bytes, alive)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, torch.Tensor):
                self.track(leaf)
        return output


@every_configuration
@pytest.mark.parametrize(("dtype", "itemsize"), [(torch.float32, 4), (torch.bfloat16, 2)], ids=["float32", "bfloat16"])
def test_feature_maps_are_counted_as_the_real_forward_pass_holds_them(architecture, dtype, itemsize):
    model, image = shapes_only(architecture, dtype)
    with torch.inference_mode(), LiveTensors() as live:
        live.track(image)
        model(image)
    assert architecture.activation_bytes(tile_of(architecture), itemsize) == live.peak_bytes > 0


MEASURE_RESIDENT_MEMORY = """
import json, sys
from pathlib import Path
import numpy as np
from segment_slide.unet.architecture import Architecture
from segment_slide.unet.model import UNet
from segment_slide.unet.network import InferenceSettings
from segment_slide.unet.predict import Predictor

def resident_bytes(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

tile, precision, options = json.loads(sys.argv[1])
architecture = Architecture(**options)
settings = InferenceSettings((0.0,), (1.0,), tuple(tile), device="cpu", precision=precision)
predictor = Predictor(UNet(architecture), settings)
halo = 2 * architecture.geometry.halo
predictor.predict(np.zeros((1, *[16 + halo] * len(tile)), np.float32))  # libraries load, pools start
image = np.zeros((1, *[size + halo for size in tile]), np.float32)
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = resident_bytes("VmRSS")
predictor.predict(image)
print(resident_bytes("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("tile", "precision", "options"),
    [
        ((768, 768), "float32", {"depth": 2, "base_channels": 8}),
        ((96, 96, 96), "float32", {"depth": 1, "base_channels": 8, "ndim": 3}),
    ],
    ids=["plane", "volume"],
)
def test_a_forward_pass_needs_the_counted_memory_and_at_most_as_much_again_for_the_library(tile, precision, options):
    arguments = json.dumps([tile, precision, options])
    run = subprocess.run(
        [sys.executable, "-c", MEASURE_RESIDENT_MEMORY, arguments], capture_output=True, text=True, check=True
    )
    counted = Architecture(**options).activation_bytes(tile, 2 if precision == "bfloat16" else 4)
    assert 0.8 < int(run.stdout) / counted < 2.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"depth": 0},
        {"depth": 2.0},
        {"depth": "4"},
        {"ndim": 1},
        {"ndim": 4},
        {"n_classes": 1},
        {"n_classes": 256},
        {"in_channels": 0},
        {"in_channels": True},
        {"base_channels": 0},
        {"dropout": -0.1},
        {"dropout": 1.0},
    ],
    ids=str,
)
def test_impossible_architectures_are_refused_naming_the_field(wrong):
    with pytest.raises(GeometryError, match=f"{next(iter(wrong))}="):
        Architecture(**wrong)


def test_planning_does_not_import_torch():
    names = ("geometry", "architecture", "errors", "checkpoint", "network", "open_network")
    light = ", ".join(f"segment_slide.unet.{name}" for name in names)
    is_there = "print('torch' in sys.modules)"
    code = f"import sys, {light}; {is_there}; import segment_slide.unet.model; {is_there}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]
