"""Import a network: check its file, measure its locality and its cost, prove it on a random image, write one file."""

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segment_slide.unet.engines.config import METADATA_KEY, Cost, ImportedConfig, Source
from segment_slide.unet.engines.onnx_network import OnnxNetwork, import_runtime, make_session, open_onnx
from segment_slide.unet.errors import CheckpointError, NotLocalError
from segment_slide.unet.file_checksum import hash_file
from segment_slide.unet.importing.cost import measure_cost
from segment_slide.unet.importing.options import ImportOptions
from segment_slide.unet.importing.package import Package, open_package
from segment_slide.unet.locality.measure import PROBE_VERSION, measure
from segment_slide.unet.locality.record import MeasuredLocality
from segment_slide.unet.normalisation import Normalisation

if TYPE_CHECKING:
    import onnx

SUFFIX = ".onnx"
_CODE = (".pt", ".pt2", ".pth", ".ckpt", ".pkl", ".pickle")
_MEASURED_PX = {2: (256, 512), 3: (64, 128)}  # sizes at which the memory of a pass is measured
_SAME = 1e-5  # of test tensors, as packages demand


@dataclass(frozen=True)
class Imported:
    """An imported network.

    Attributes
    ----------
    network : OnnxNetwork
        The network in its new file.
    notes : tuple of str
        What a user should know: what was measured otherwise than declared, what was assumed.
    """

    network: OnnxNetwork
    notes: tuple[str, ...]


def import_network(
    path: str | Path, output: str | Path, options: ImportOptions, report: Callable[[int], None] | None = None
) -> Imported:
    """Measure a network once and write a file that `segment` runs.

    Parameters
    ----------
    path : path-like
        An ONNX file, or a package of the model zoo (bioimage.io; folder, zip or its description) with ONNX weights.
    output : path-like
        File to write, ``NAME.onnx``; it must not exist.
    options : ImportOptions
        What the file does not say.
    report : callable, optional
        Called with the number of passes so far.

    Raises
    ------
    CheckpointError
        If the file cannot be used, or something that is needed is not known.
    NotLocalError
        If no tile gives the whole image's result.
    """
    path, output = Path(path).absolute(), Path(output).absolute()
    if output.suffix != SUFFIX:
        raise CheckpointError(f"output={output}: expected a name that ends with {SUFFIX}.")
    if output.exists():
        raise CheckpointError(f"output={output} is there already; choose another name, or delete it.")
    if not output.parent.is_dir():
        raise CheckpointError(f"output={output}: its folder does not exist.")
    if path.suffix in _CODE:
        raise CheckpointError(
            f"model={path}: opening a {path.suffix} file can run code of whoever made it, so it is refused. Export the "
            f"network to ONNX where you trust it: torch.onnx.export(network.eval(), image, 'network.onnx')."
        )
    import_runtime()
    with tempfile.TemporaryDirectory(prefix="segment-slide-") as folder:
        package = open_package(path, Path(folder))
        return _import(package, output, options, report)


def _import(package: Package, output: Path, options: ImportOptions, report: Callable[[int], None] | None) -> Imported:
    from segment_slide.unet.engines import onnx_graph, onnx_layers

    original = onnx_graph.read_model(package.weights)
    sha256 = hash_file(package.weights)
    if package.sha256 and package.sha256 != sha256:
        raise CheckpointError(f"model={package.weights} has another sha256 than its description says: copy it again.")
    signature = onnx_graph.find_signature(original, options.network_output)
    model = onnx_graph.free_sizes(original, signature)
    onnx_graph.expect_finite(model, package.weights)
    last = onnx_layers.last_layer(model, signature.output)
    normalisation = _choose_normalisation(options, package, signature.in_channels)
    function = run_session(make_session(model.SerializeToString()))
    random = run_session(make_session(onnx_layers.randomise(model).SerializeToString()))
    try:
        locality = measure(
            function,
            signature.in_channels,
            signature.ndim,
            randomised=random,
            report=report,
            explain=lambda: onnx_layers.explain(model),
        )
    except NotLocalError as error:
        raise NotLocalError(f"model={package.location}: {error}") from error
    _refuse_what_is_not_built(package, locality)
    meaning = options.meaning or ("probabilities" if last in ("Sigmoid", "Softmax") else "scores")
    is_independent = last == "Sigmoid" or package.activation == "sigmoid"
    _expect_meaning(function, locality, meaning)
    config = ImportedConfig(
        locality=locality,
        meaning=meaning,
        classes=options.classes or _name_classes(locality.out_channels, is_independent=is_independent),
        normalisation=normalisation,
        source=Source(package.name, sha256, package.kind, package.halo),
        cost=_measure_cost(model, signature, locality),
        runtime=f"onnxruntime {import_runtime().__version__}",
        probe_version=PROBE_VERSION,
        channel_names=package.channel_names,
        pixel_size_um=_pixel_size(options.pixel_size or package.pixel_size_um, signature.ndim),
    )
    notes = [*package.notes, *_compare_with_claims(package, locality), *_check_test_tensors(package, function)]
    if not locality.is_bit_equal:
        notes.append("tiles differ from the whole image in the last bits, because the runtime rounds them otherwise")
    _write(model, config, output)
    return Imported(open_onnx(output), tuple(notes))


def run_session(session: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A session as a function of one array."""
    name = session.get_inputs()[0].name

    def run(image: np.ndarray) -> np.ndarray:
        (answer,) = session.run(None, {name: image})
        return np.asarray(answer)

    return run


def _refuse_what_is_not_built(package: Package, locality: MeasuredLocality) -> None:
    if any(axis.ratio != 1 for axis in locality.axes):
        scale = ", ".join(f"{axis.scale[0]}/{axis.scale[1]}" for axis in locality.axes)
        raise CheckpointError(
            f"model={package.location}: its output has another size than its input ({scale} along the axes). Labels "
            f"are stored at the input's size; add a layer that enlarges the output."
        )


def _expect_meaning(function: Callable[[np.ndarray], np.ndarray], locality: MeasuredLocality, meaning: str) -> None:
    """Refuse "probabilities" that are none: scores would be cut off at 0 and 1 without a word."""
    sizes = [axis.round_up(2 * axis.halo + axis.step) for axis in locality.axes]
    image = np.random.default_rng(0).standard_normal((1, locality.in_channels, *sizes)).astype(np.float32)
    answer = function(image)
    if meaning == "probabilities" and not (answer.min() >= -_SAME and answer.max() <= 1 + _SAME):
        raise CheckpointError(
            f"`meaning`=probabilities, but the output goes from {answer.min():.3g} to {answer.max():.3g}: "
            f"it gives scores."
        )


def _name_classes(n_channels: int, *, is_independent: bool) -> tuple[str, ...]:
    """Names of the classes if nobody gave them."""
    if n_channels == 1:
        return ("background", "foreground")
    if is_independent:
        raise CheckpointError(
            f"the network's {n_channels} channels are independent of each other (its last step is a sigmoid): say "
            f"what they are with `classes`, {n_channels} names if the first is background, else {n_channels + 1} with "
            f"background first."
        )
    return ("background", *(f"class {number}" for number in range(1, n_channels)))


def _choose_normalisation(options: ImportOptions, package: Package, n_channels: int) -> Normalisation:
    if options.normalise is None and package.normalisation is not None:
        known = package.normalisation
        if known.kind == "constants" and len(known.offset) == 1:  # one number stands for all channels
            return Normalisation("constants", known.offset * n_channels, known.scale * n_channels)
        return known
    if options.normalise is None:
        raise CheckpointError(
            "nothing says how the network's input is scaled, and a wrong scale gives wrong labels without a word. Say "
            "it with `normalise`: mean-std, percentiles or constants (with `offset` and `scale`)."
        )
    if options.normalise != "constants":
        return Normalisation(options.normalise, low=options.low, high=options.high)
    offset, scale = options.offset or (0.0,) * n_channels, options.scale or (1.0,) * n_channels
    return Normalisation("constants", offset, scale)


def _pixel_size(sizes: Sequence[float], ndim: int) -> tuple[float, ...]:
    return tuple(sizes) * (ndim if len(sizes) == 1 else 1)


def _measure_cost(model: "onnx.ModelProto", signature: Any, locality: MeasuredLocality) -> Cost:
    from segment_slide.unet.engines import onnx_layers

    smaller, larger = ([axis.round_up(px) for axis in locality.axes] for px in _MEASURED_PX[signature.ndim])
    with tempfile.TemporaryDirectory(prefix="segment-slide-") as folder:
        path = Path(folder) / "network.onnx"
        path.write_bytes(model.SerializeToString())
        per_px, fixed = measure_cost(path, signature.in_channels, smaller, larger)
    flops = onnx_layers.count_flops(model, larger) / math.prod(larger)
    return Cost(onnx_layers.count_parameters(model), flops, per_px, fixed)


def _compare_with_claims(package: Package, locality: MeasuredLocality) -> list[str]:
    notes = []
    for declared, axis in zip(package.halo, locality.axes, strict=False):
        if declared < axis.reach:
            notes.append(f"declared halo {declared} px, measured {axis.reach}: using {axis.halo}")
    return notes[:1]


def _check_test_tensors(package: Package, function: Callable[[np.ndarray], np.ndarray]) -> list[str]:
    """Run the package's own test in one plain pass."""
    if package.test is None:
        return []
    image, wanted = package.test
    answer = package.activate(function(package.scale(image)))
    if answer.shape != wanted.shape:
        raise CheckpointError(
            f"model={package.location}: its test output has the shape {wanted.shape}, the network gave {answer.shape}."
        )
    difference = float(np.abs(answer - wanted).max())
    if not difference <= _SAME:
        raise CheckpointError(
            f"model={package.location} does not give its own test output (difference up to {difference:.2g}, expected "
            f"at most {_SAME:g}): its description and its weights do not belong together, or a step of its description "
            f"is not understood."
        )
    return [f"its own test output was reproduced (difference up to {difference:.1e})"]


def _write(model: "onnx.ModelProto", config: ImportedConfig, output: Path) -> None:
    """Write the network with its record, completely or not at all."""
    model.metadata_props.add(key=METADATA_KEY, value=config.to_json())
    content = model.SerializeToString()
    partial = output.with_name(output.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(output)
    except OSError as error:
        raise CheckpointError(f"output={output} cannot be written: {error.strerror or error}.") from error
    finally:
        partial.unlink(missing_ok=True)
