"""What is guessed of a device without torch is what torch says."""

import importlib.metadata
from pathlib import Path

import pytest

from segment_slide.unet import device_facts
from segment_slide.unet.device import describe_device
from segment_slide.unet.device_facts import DeviceFacts, guess_device


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_a_guess_is_what_torch_finds(device: str, precision: str) -> None:
    guessed = guess_device(device, precision)
    if guessed is not None:
        found = describe_device(device, precision)
        assert guessed == DeviceFacts(found.kind, "", found.precision)
    elif device == "cpu":
        pytest.skip("the instructions of this processor are not in /proc/cpuinfo")


def test_torch_is_asked_where_a_gpu_may_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert guess_device("cuda", "float32") is None
    assert guess_device("tpu", "float32") is None
    assert guess_device("cpu", "float16") is None
    driver = tmp_path / "driver"
    monkeypatch.setattr(device_facts, "_GPU_DRIVERS", (str(driver),))
    for version, has_driver, expected in [
        ("2.13.0", False, DeviceFacts("cpu", "", "float32")),
        ("2.13.0+cpu", True, DeviceFacts("cpu", "", "float32")),
        ("2.13.0+cu130", True, None),
        ("2.13.0", True, None),
    ]:
        monkeypatch.setattr(importlib.metadata, "version", lambda name, version=version: version)
        driver.touch() if has_driver else driver.unlink(missing_ok=True)
        assert guess_device("auto", "float32") == expected
        assert guess_device("cpu", "float32") == DeviceFacts("cpu", "", "float32")
