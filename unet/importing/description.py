"""What a description of the BioImage Model Zoo says of axes, and of how the input is scaled, in both formats."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segment_slide.unet.errors import CheckpointError
from segment_slide.unet.normalisation import Normalisation

_TO_UM = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}


def read_axes(tensor: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Axes of both formats as dictionaries with letter, names, halo, scale and unit."""
    axes = tensor["axes"]
    if isinstance(axes, str):  # 0.4: a word
        halos = tensor.get("halo") or [0] * len(axes)
        return [
            {"letter": letter, "names": (), "halo": int(halo), "scale": None, "unit": None}
            for letter, halo in zip(axes, halos, strict=True)
        ]
    found = []
    for axis in axes:
        kind = axis["type"]
        letter = {"batch": "b", "channel": "c"}.get(kind) or str(axis.get("id") or "x")
        names = axis.get("channel_names") or ()
        found.append(
            {
                "letter": letter,
                "names": tuple(map(str, names)) if isinstance(names, list) else (),
                "halo": int(axis.get("halo") or 0),
                "scale": axis.get("scale"),
                "unit": axis.get("unit"),
            }
        )
    return found


def read_pixel_size(axes: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    """Pixel size in um of each axis; empty if one is not known."""
    sizes = [axis["scale"] * _TO_UM[axis["unit"]] for axis in axes if axis["unit"] in _TO_UM and axis["scale"]]
    return tuple(map(float, sizes)) if len(sizes) == len(axes) else ()


def read_step(step: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Name and arguments of a step before or after the network."""
    return str(step.get("id") or step.get("name")), step.get("kwargs") or {}


def read_preprocessing(
    steps: Sequence[Mapping[str, Any]], location: Path, axes: Sequence[Mapping[str, Any]]
) -> tuple[Normalisation, float, list[str]]:
    """The steps as one normalisation of the whole image.

    Raises
    ------
    CheckpointError
        If they are more than that.
    """
    n_channels = max(1, len(axes[1]["names"]))
    found: Normalisation | None = None
    eps, notes = 0.0, []
    for name, wanted in map(read_step, steps):
        if name == "ensure_dtype":
            continue
        if found is not None:
            raise CheckpointError(f"model={location}: its description scales the input twice ({name} is the second).")
        if name == "scale_linear":
            gain, offset = _each(wanted.get("gain", 1.0), n_channels), _each(wanted.get("offset", 0.0), n_channels)
            found = Normalisation(
                "constants",
                tuple(-shift / factor for factor, shift in zip(gain, offset, strict=True)),
                tuple(1 / factor for factor in gain),
            )
        elif name == "fixed_zero_mean_unit_variance" or (
            name == "zero_mean_unit_variance" and wanted.get("mode") == "fixed"
        ):
            found = Normalisation("constants", _each(wanted["mean"], n_channels), _each(wanted["std"], n_channels))
        elif name == "zero_mean_unit_variance":
            found, eps = Normalisation("mean-std"), float(wanted.get("eps", 1e-6))
            notes += _note_batches(wanted, location)
        elif name == "scale_range":
            low, high = float(wanted.get("min_percentile", 0.0)), float(wanted.get("max_percentile", 100.0))
            found, eps = Normalisation("percentiles", low=low, high=high), float(wanted.get("eps", 1e-6))
            notes += _note_batches(wanted, location)
        else:
            raise CheckpointError(
                f"model={location}: its description scales the input by {name:.60}, which is not understood. Export "
                f"the network with this step in it, and import its ONNX file."
            )
    if found is None:
        found = Normalisation("constants", (0.0,) * n_channels, (1.0,) * n_channels)
    return found, eps, notes


def _note_batches(wanted: Mapping[str, Any], location: Path) -> list[str]:
    """Say which pixels are scaled together: all of the image, each channel by itself."""
    axes = wanted.get("axes")
    letters = {"channel": "c", "batch": "b"}
    together = {letters.get(str(axis), str(axis)) for axis in (axes if axes is not None else ())}
    if "c" in together:
        return ["its description scales all channels together; here each channel is scaled by itself"]
    return []


def _each(value: object, n_channels: int) -> tuple[float, ...]:
    values = [float(item) for item in value] if isinstance(value, list | tuple) else [float(value)]  # type: ignore[arg-type]
    return tuple(values * n_channels if len(values) == 1 else values)
