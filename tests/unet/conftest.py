"""Small networks with repeatable weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.model import UNet


def build_unet(seed: int = 0, **architecture: Any) -> UNet:
    """Random float32 network in evaluation mode; torch's global generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet(Architecture(**architecture)).eval()


@pytest.fixture(scope="session")
def make_unet() -> Callable[..., UNet]:
    return build_unet
