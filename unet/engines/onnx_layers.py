"""Layers of an ONNX network: which weights they have, what they cost, what in them looks at the whole image.

Imports `onnx`, of the extra ``[onnx]``: import it where it is needed.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

# Inputs of layers that are weights, by their position.
_WEIGHTS = {"Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2), "MatMul": (0, 1), "PRelu": (1,)}
_BATCH_NORM = "BatchNormalization"


def find_weights(model: onnx.ModelProto) -> dict[str, tuple[str, int]]:
    """What each weight is for: the layer's kind and the position among its inputs."""
    found = {}
    for node in model.graph.node:
        positions = (1, 2, 3, 4) if node.op_type == _BATCH_NORM else _WEIGHTS.get(node.op_type, ())
        for position in positions:
            if position < len(node.input):
                found[node.input[position]] = (node.op_type, position)
    return found


def list_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Initialisers, and the values of constant layers under the layer's name."""
    yield from model.graph.initializer
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    attribute.t.name = node.output[0]
                    yield attribute.t


def list_constants(model: onnx.ModelProto) -> Iterator[tuple[str, np.ndarray]]:
    """Name and value of each tensor that is in the file."""
    for tensor in model.graph.initializer:
        yield tensor.name, numpy_helper.to_array(tensor)
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], numpy_helper.to_array(attribute.t)


def randomise(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """A copy with random weights: none is 0, none is far larger than others, and no batch statistic is extreme."""
    model = copy.deepcopy(model)
    chance = np.random.default_rng(seed)
    roles = find_weights(model)
    for tensor in list_tensors(model):
        role = roles.get(tensor.name)
        if role is None or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        shape = tuple(tensor.dims)
        values = _draw(chance, role, shape).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def _draw(chance: np.random.Generator, role: tuple[str, int], shape: tuple[int, ...]) -> np.ndarray:
    kind, position = role
    if kind == _BATCH_NORM and position in (1, 4):
        return chance.random(shape) + 0.5
    if len(shape) < 2:
        return chance.standard_normal(shape) * 0.1
    fan_in = math.prod(shape[1:]) if kind != "MatMul" else shape[-2]
    return chance.standard_normal(shape) * math.sqrt(2 / max(1, fan_in))


def count_parameters(model: onnx.ModelProto) -> int:
    """Number of weights and biases."""
    roles = find_weights(model)
    return sum(math.prod(tensor.dims) for tensor in list_tensors(model) if tensor.name in roles)


def count_flops(model: onnx.ModelProto, sizes: Sequence[int]) -> int:
    """Floating-point operations of convolutions and matrix products for an input of these spatial sizes.

    The network has one input, as `onnx_graph.free_sizes` leaves it.
    """
    model = copy.deepcopy(model)
    (image,) = model.graph.input
    for dim, size in zip(image.type.tensor_type.shape.dim[2:], sizes, strict=True):
        dim.dim_value = size
    shapes = infer_sizes(model) | {tensor.name: list(tensor.dims) for tensor in list_tensors(model)}
    total = 0
    for node in model.graph.node:
        made, weights = shapes.get(node.output[0], []), shapes.get(node.input[1], []) if len(node.input) > 1 else []
        if node.op_type == "Conv":
            total += 2 * math.prod(made) * math.prod(weights[1:])
        elif node.op_type == "ConvTranspose":  # each input pixel feeds a whole kernel
            total += 2 * math.prod(shapes.get(node.input[0], [])) * math.prod(weights[1:])
        elif node.op_type in ("MatMul", "Gemm") and made and weights:
            total += 2 * math.prod(made) * weights[-2 if node.op_type == "MatMul" else 0]
    return total


def infer_sizes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Sizes of all tensors, where they are known; 0 where one is not."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # noqa: BLE001 - the checker of a foreign program; sizes are then unknown
        return {}
    values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}


def last_layer(model: onnx.ModelProto, output: str) -> str:
    """Kind of the layer that makes an output, past layers that change no value, such as "Sigmoid"."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    while (node := made_by.get(output)) is not None and node.op_type in ("Identity", "Cast", "Transpose"):
        output = node.input[0]
    return "" if node is None else str(node.op_type)


def explain(model: onnx.ModelProto) -> str:
    """What in a network looks at the whole image, in words: "LAYER: instance normalisation"; "" if nothing is known."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    constants = {name for name, _ in list_constants(model)}
    for node in model.graph.node:
        kind = _explain_layer(node, made_by, constants)
        if kind:
            return f"{node.name or node.output[0]}: {kind}"
    return ""


def _explain_layer(node: Any, made_by: dict[str, Any], constants: set[str]) -> str:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "InstanceNormalization":
        before = made_by.get(node.input[0])
        return "group normalisation" if before is not None and before.op_type == "Reshape" else "instance normalisation"
    if node.op_type in ("GroupNormalization", "LayerNormalization"):
        return node.op_type.removesuffix("Normalization").lower() + " normalisation"
    if node.op_type in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
        return "global pooling"
    if node.op_type == _BATCH_NORM and "training_mode" in attributes and attributes["training_mode"].i:
        return "batch normalisation in training mode"
    if node.op_type == "MatMul" and not constants & set(node.input):
        return "attention"
    if node.op_type in ("ReduceMean", "ReduceMax", "ReduceSum"):
        return "a mean, maximum or sum over the image"
    return ""
