"""ONNX files: read without running anything of theirs, and freed of fixed sizes.

Imports `onnx`, of the extra ``[onnx]``: import it where it is needed.
"""

import copy
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from segment_slide.unet.engines.onnx_layers import find_weights, infer_sizes, list_constants, list_tensors
from segment_slide.unet.errors import CheckpointError

_FLOATS = {onnx.TensorProto.FLOAT: np.float32}
_MOST_BYTES = 2 << 30  # of one file: protobuf's limit
_LARGEST_RATIO = 16


@dataclass(frozen=True)
class Signature:
    """Input and output of a network.

    Attributes
    ----------
    input, output : str
        Their names in the graph.
    in_channels, ndim : int
        Channels and spatial axes of the input.
    """

    input: str
    output: str
    in_channels: int
    ndim: int


def read_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX file with its weights.

    Raises
    ------
    CheckpointError
        If it is no ONNX file, or if weights lie in files outside its folder.
    """
    if not path.is_file():
        raise CheckpointError(f"model={path}: no such file; expected a network (.onnx).")
    if path.stat().st_size > _MOST_BYTES:
        raise CheckpointError(f"model={path} has more than 2 GiB, which no ONNX file can have.")
    try:
        model = onnx.load(str(path), load_external_data=False)
        if not model.graph.node:
            raise ValueError("it has no layers")
    except Exception as error:
        raise CheckpointError(f"model={path} is no ONNX file that can be read: {error!s:.200}") from error
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _expect_inside(tensor, path)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise CheckpointError(f"model={path}: its weights in other files cannot be read: {error!s:.200}") from error
    return model


def _expect_inside(tensor: onnx.TensorProto, path: Path) -> None:
    """Refuse weights in a file outside the model's folder: it may be any file of this machine."""
    place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    folder = path.parent.resolve()
    target = folder / place
    if not place or Path(place).is_absolute() or folder not in target.resolve().parents or target.is_symlink():
        raise CheckpointError(
            f"model={path}: weights of {tensor.name:.60} lie in {place:.100}, which is outside of the model's folder. "
            f"Such a file could be any file of this computer, so it is refused."
        )


def find_signature(model: onnx.ModelProto, output: str = "") -> Signature:
    """The one input and the one output that are used.

    Parameters
    ----------
    model : ModelProto
        The network.
    output : str
        Name of the output if there are several.

    Raises
    ------
    CheckpointError
        If there are several, or if they are no images of float32.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        listed = ", ".join(value.name for value in inputs)
        raise CheckpointError(f"the network has {len(inputs)} inputs ({listed}), expected one: an image.")
    names = [value.name for value in model.graph.output]
    if not output and len(names) != 1:
        raise CheckpointError(
            f"the network has {len(names)} outputs ({', '.join(names)}): name the one that is used, `output`."
        )
    if output and output not in names:
        raise CheckpointError(f"output={output}: the network has {', '.join(names)}.")
    tensor = inputs[0].type.tensor_type
    sizes = [dim.dim_value for dim in tensor.shape.dim]
    if len(sizes) not in (4, 5) or sizes[1] < 1:
        raise CheckpointError(
            f"its input has the sizes {sizes}, expected (n, channels, y, x) or (n, channels, z, y, x)."
        )
    if tensor.elem_type not in _FLOATS:
        found = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise CheckpointError(f"its input is {found}, expected float32: export the network in float32.")
    return Signature(inputs[0].name, output or names[0], sizes[1], len(sizes) - 2)


def free_sizes(model: onnx.ModelProto, signature: Signature) -> onnx.ModelProto:
    """A copy that takes one image of any size, and has one output.

    Fixed sizes of `Resize` layers become ratios where they are simple ones.
    """
    fixed = infer_sizes(model)
    model = copy.deepcopy(model)
    graph = model.graph
    _sizes_to_ratios(model, fixed)
    for value in [value for value in graph.output if value.name != signature.output]:
        graph.output.remove(value)
    for value in [value for value in graph.input if value.name != signature.input]:
        graph.input.remove(value)
    for value in (*graph.input, *graph.output):
        for number, dim in enumerate(value.type.tensor_type.shape.dim):
            if number == 0:
                dim.dim_value = 1
            elif number > 1:
                dim.dim_param = f"{value.name}_{number}"
    del graph.value_info[:]
    _drop_notes(model)
    return model


def _drop_notes(model: onnx.ModelProto) -> None:
    """Remove what exporters note beside the layers: lines of source code, with paths of the computer it was made on."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]


def _sizes_to_ratios(model: onnx.ModelProto, sizes: dict[str, list[int]]) -> None:
    constants = dict(list_constants(model))
    for number, node in enumerate(model.graph.node):
        if node.op_type != "Resize" or len(node.input) < 4 or node.input[3] not in constants:
            continue
        before, after = sizes.get(node.input[0], []), constants[node.input[3]].tolist()
        if len(before) != len(after) or not all(before):
            continue
        ratios = [Fraction(b, a) for a, b in zip(before, after, strict=True)]
        if any(max(ratio.numerator, ratio.denominator) > _LARGEST_RATIO for ratio in ratios):
            continue
        name = f"segment_slide_scales_{number}"
        values = np.array([float(ratio) for ratio in ratios], np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
        inputs = [node.input[0], node.input[1], name]
        del node.input[:]
        node.input.extend(inputs)


def expect_finite(model: onnx.ModelProto, path: Path) -> None:
    """Refuse weights that are NaN or infinite.

    Raises
    ------
    CheckpointError
        Naming the first such weight.
    """
    roles = find_weights(model)
    for tensor in list_tensors(model):
        if tensor.name not in roles:
            continue
        values = numpy_helper.to_array(tensor)
        if np.issubdtype(values.dtype, np.floating) and (n_bad := int((~np.isfinite(values)).sum())):
            raise CheckpointError(
                f"model={path}: {n_bad} of the {values.size} values of {tensor.name:.100} are NaN or infinite; "
                f"expected finite weights. The training diverged, or the file is damaged."
            )
