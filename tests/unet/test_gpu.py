"""The network on a CUDA device beside the CPU; skipped where there is none."""

import numpy as np
import pytest
import torch

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.model import UNet, whole_image_logits
from segment_slide.unet.network import InferenceSettings
from segment_slide.unet.predict import Predictor
from segment_slide.unet.train import build_model, train
from tests.unet.training_support import SMALL, training

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


def predictor(tile: int, precision: str, device: str) -> tuple[UNet, Predictor]:
    """The same random network each time, depth 4, base 16."""
    torch.manual_seed(0)
    model = UNet(Architecture(base_channels=16)).eval()
    settings = InferenceSettings((0.0,), (1.0,), (tile, tile), device=device, precision=precision)
    return model, Predictor(model, settings)


def haloed_noise(size: int, halo: int) -> np.ndarray:
    """(1, y, x) float32 noise with its mirrored halo."""
    pixels = np.random.default_rng(0).normal(size=(1, size, size)).astype(np.float32)
    return np.pad(pixels, [(0, 0), (halo, halo), (halo, halo)], mode="reflect")


def test_labels_on_the_gpu_differ_from_the_whole_image_on_the_cpu_only_at_ties():
    torch.manual_seed(0)
    model = UNet(Architecture(base_channels=16)).eval()
    pixels = haloed_noise(512, 94)
    logits = whole_image_logits(model, pixels[:, 94:-94, 94:-94])
    for tile in (256, 512):
        _, on_gpu = predictor(tile, "float32", "cuda")
        changed = on_gpu.predict(pixels).labels != logits.argmax(axis=0)
        assert (np.abs(logits[0] - logits[1])[changed] < 1e-4 * logits.std()).all()


def test_bfloat16_on_the_gpu_agrees_with_float32_on_nearly_all_pixels():
    pixels = haloed_noise(512, 94)
    exact, fast = (predictor(512, precision, "cuda")[1].predict(pixels).labels for precision in ("float32", "bfloat16"))
    assert np.mean(exact == fast) > 0.98


def test_the_tile_is_halved_when_the_gpus_memory_runs_out():
    """Real: the process may take so little of the card that the large tile cannot fit."""
    pixels = haloed_noise(2048, 94)
    _, ready = predictor(2048, "float32", "cuda")
    _, small = predictor(1024, "float32", "cuda")
    expected = small.predict(pixels).labels
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 1.2e9) / total)
    try:
        labels = ready.predict(pixels).labels
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert np.mean(labels == expected) > 0.9999


def test_training_on_the_gpu_learns_and_goes_on(tmp_path):
    losses = {}
    for device, precision in (("cuda", "float32"), ("cuda", "bfloat16"), ("cpu", "float32")):
        model = build_model(SMALL, 0)
        path = tmp_path / f"{device}-{precision}"
        settings = {"steps": 60, "device": device, "precision": precision, "processes": None, "state_path": path}
        history = train(model, training(**settings))
        losses[device, precision] = history.losses
        assert np.mean(history.losses[-10:]) < 0.8 * np.mean(history.losses[:10])
        assert train(build_model(SMALL, 0), training(**settings)) == history
    if torch.cuda.device_count() == 1:
        np.testing.assert_allclose(losses["cuda", "float32"][:3], losses["cpu", "float32"][:3], rtol=1e-2)
