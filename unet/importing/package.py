"""Packages of the BioImage Model Zoo (bioimage.io, formats 0.4 and 0.5), and bare ONNX files, as one thing.

A package is read by this file alone: its description is YAML, and nothing in it is run or fetched. Of its weights the
ONNX entry is used. What the description declares of halos is a claim that is checked, not believed.
"""

import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segment_slide.unet.errors import CheckpointError
from segment_slide.unet.importing.description import read_axes, read_pixel_size, read_preprocessing, read_step
from segment_slide.unet.normalisation import Normalisation

DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml", "model.yaml")
_MOST_BYTES = 4 << 30  # of an unpacked package
_MOST_DESCRIPTION_BYTES = 1 << 20
_MOST_TEST_BYTES = 256 << 20
_SPATIAL = "zyx"
_ACTIVATIONS = "sigmoid", "softmax"


@dataclass(frozen=True)
class Package:
    """A network's file, and what its description says.

    Attributes
    ----------
    location : Path
        What the user named.
    weights : Path
        The ONNX file.
    kind : str
        "onnx", or "bioimage.io" with its format.
    sha256 : str
        Of the weights, as the description says; "" if unknown.
    normalisation : Normalisation, optional
        How intensities become input; None if unknown.
    eps : float
        What the description adds to the divisor.
    activation : {"", "sigmoid", "softmax"}
        What the description applies to the output.
    halo : tuple of int
        Declared context per spatial axis.
    channel_names, pixel_size_um
        See `unet.engines.config.ImportedConfig`.
    test : (ndarray, ndarray), optional
        Input, (1, c, *spatial), and output of the package's own test.
    notes : tuple of str
        What was read and is not used.
    """

    location: Path
    weights: Path
    kind: str = "onnx"
    sha256: str = ""
    normalisation: Normalisation | None = None
    eps: float = 0.0
    activation: str = ""
    halo: tuple[int, ...] = ()
    channel_names: tuple[str, ...] = ()
    pixel_size_um: tuple[float, ...] = ()
    test: tuple[np.ndarray, np.ndarray] | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the file or folder."""
        return self.location.name

    def activate(self, answer: np.ndarray) -> np.ndarray:
        """The network's output after the description's last step, in float64."""
        values = answer.astype(np.float64)
        if self.activation == "sigmoid":
            return 1 / (1 + np.exp(-values))
        if self.activation == "softmax":
            powers = np.exp(values - values.max(axis=1, keepdims=True))
            return powers / powers.sum(axis=1, keepdims=True)
        return values

    def scale(self, image: np.ndarray) -> np.ndarray:
        """The network's input of a test image (1, c, *spatial): as the description says, in float32."""
        kind = self.normalisation
        values = image.astype(np.float64)
        if kind is None:
            return image.astype(np.float32)
        axes = tuple(range(2, image.ndim))
        if kind.kind == "constants":
            shape = (1, -1, *(1 for _ in axes))
            offset, scale = np.reshape(kind.offset, shape), np.reshape(kind.scale, shape)
        elif kind.kind == "mean-std":
            offset = values.mean(axis=axes, keepdims=True)
            scale = values.std(axis=axes, keepdims=True) + self.eps
        else:
            offset, high = np.percentile(values, (kind.low, kind.high), axis=axes, keepdims=True)
            scale = high - offset + self.eps
        return ((values - offset) / scale).astype(np.float32)


def open_package(path: Path, scratch: Path) -> Package:
    """Read what a user named: an ONNX file, a package's folder, its zip, or its description.

    Parameters
    ----------
    path : Path
        What the user named.
    scratch : Path
        An empty folder, where a zip is unpacked.

    Raises
    ------
    CheckpointError
        If it is none of these, or if the description asks for something that is not understood.
    """
    if path.suffix == ".onnx":
        return Package(path, path)
    if not path.exists():
        raise CheckpointError(f"model={path}: no such file or folder.")
    if path.suffix in (".yaml", ".yml"):
        return _read(path, path)
    if path.is_dir():
        return _read(path, _find_description(path, path))
    if zipfile.is_zipfile(path):
        _unpack(path, scratch)
        return _read(path, _find_description(scratch, path))
    raise CheckpointError(
        f"model={path}: expected an ONNX file, or a package of the model zoo (folder, zip, or its {DESCRIPTIONS[0]})."
    )


def _find_description(folder: Path, location: Path) -> Path:
    for name in DESCRIPTIONS:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"model={location}: there is no {' or '.join(DESCRIPTIONS)} in it, so it is no package.")


def _unpack(path: Path, folder: Path) -> None:
    """Unpack plain files whose names stay in the folder; nothing is unpacked if one does not."""
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        if sum(entry.file_size for entry in entries) > _MOST_BYTES:
            raise CheckpointError(f"model={path} holds more than {_MOST_BYTES >> 30} GiB: it is no package.")
        for entry in entries:
            target = (folder / entry.filename).resolve()
            if folder.resolve() not in target.parents or stat.S_ISLNK(entry.external_attr >> 16):
                raise CheckpointError(f"model={path} holds {entry.filename!r:.100}, which leads out of its folder.")
        for entry in entries:
            archive.extract(entry, folder)


def _read(location: Path, description: Path) -> Package:
    import yaml

    if description.stat().st_size > _MOST_DESCRIPTION_BYTES:
        raise CheckpointError(f"model={location}: {description.name} is too large for a description.")
    try:
        content = yaml.safe_load(description.read_text("utf-8"))
        version = str(content["format_version"])
        entry = content["weights"].get("onnx")
        inputs, outputs = content["inputs"], content["outputs"]
    except (yaml.YAMLError, UnicodeError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"model={location}: {description.name} cannot be read: {error!s:.200}") from error
    if not version.startswith(("0.4", "0.5")):
        raise CheckpointError(f"model={location}: format_version={version:.20}, expected 0.4 or 0.5.")
    if entry is None:
        kinds = ", ".join(map(str, content["weights"]))
        raise CheckpointError(
            f"model={location}: the package has weights as {kinds}, but none as ONNX. Opening the others can run code. "
            f"Look for a version with ONNX weights, or convert it with bioimageio.core."
        )
    if len(inputs) != 1 or len(outputs) != 1:
        raise CheckpointError(
            f"model={location}: the package has {len(inputs)} inputs and {len(outputs)} outputs, expected one of each."
        )
    try:
        return _describe(location, description.parent, version, content, entry)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"model={location}: {description.name} is not as format {version} says: "
            f"{type(error).__name__} {error!s:.100}"
        ) from error


def _describe(
    location: Path, folder: Path, version: str, content: Mapping[str, Any], entry: Mapping[str, Any]
) -> Package:
    (source,), (target,) = content["inputs"], content["outputs"]
    axes = read_axes(source)
    letters = [axis["letter"] for axis in axes]
    if letters[:2] != ["b", "c"] or "".join(letters[2:]) not in ("yx", "zyx"):
        raise CheckpointError(f"model={location}: its input has the axes {''.join(letters)}, expected bcyx or bczyx.")
    normalisation, eps, notes = read_preprocessing(source.get("preprocessing") or [], location, axes)
    steps = [read_step(step) for step in target.get("postprocessing") or []]
    unknown = [name for name, _ in steps if name not in (*_ACTIVATIONS, "ensure_dtype")]
    notes += [f"its description applies {name} to the output: not done" for name in unknown]
    return Package(
        location=location,
        weights=_inside(folder, entry["source"], location),
        kind=f"bioimage.io {version}",
        sha256=str(entry.get("sha256") or ""),
        normalisation=normalisation,
        eps=eps,
        activation=next((name for name, _ in steps if name in _ACTIVATIONS), ""),
        halo=tuple(axis["halo"] for axis in read_axes(target) if axis["letter"] in _SPATIAL),
        channel_names=axes[1]["names"],
        pixel_size_um=read_pixel_size(axes[2:]),
        test=_read_test(folder, content, location),
        notes=tuple(notes),
    )


def _inside(folder: Path, source: object, location: Path) -> Path:
    """A file of the package."""
    text = str(source)
    path = (folder / text).resolve()
    if "://" in text or folder.resolve() not in path.parents or not path.is_file():
        raise CheckpointError(
            f"model={location}: {text:.100} is not a file of the package; download the whole package first."
        )
    return path


def _read_test(folder: Path, content: Mapping[str, Any], location: Path) -> tuple[np.ndarray, np.ndarray] | None:
    places = [_test_place(content, key) for key in ("inputs", "outputs")]
    if not all(places):
        return None
    first, second = (_load(_inside(folder, place, location), location) for place in places)
    return first, second


def _test_place(content: Mapping[str, Any], key: str) -> str:
    tensor = content[key][0].get("test_tensor")
    if isinstance(tensor, Mapping):
        return str(tensor.get("source") or "")
    old = content.get(f"test_{key}") or [""]
    return str(old[0])


def _load(path: Path, location: Path) -> np.ndarray:
    if path.stat().st_size > _MOST_TEST_BYTES:
        raise CheckpointError(f"model={location}: {path.name} is too large for a test.")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError) as error:
        raise CheckpointError(f"model={location}: {path.name} is no array: {error!s:.100}") from error
