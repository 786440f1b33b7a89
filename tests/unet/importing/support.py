"""Small ONNX networks and packages of the model zoo, written to a folder."""

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import yaml
from onnx import TensorProto, helper, numpy_helper

NETWORKS = Path(__file__).parents[2] / "data/networks"


def run_onnx(path: Path, image: np.ndarray) -> np.ndarray:
    """The network in one plain pass on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: image.astype(np.float32)})
    return answer


def write_onnx(
    path: Path,
    layers: Sequence[tuple[str, Sequence[str], str, dict[str, Any]]],
    weights: dict[str, np.ndarray],
    *,
    sizes: Sequence[int | str] = (1, 1, "y", "x"),
    outputs: Sequence[str] = ("out",),
    dtype: int = TensorProto.FLOAT,
    made: int = TensorProto.FLOAT,
) -> Path:
    """An ONNX file of layers (kind, inputs, output, attributes); its input is "image"."""
    nodes = [helper.make_node(kind, list(inputs), [output], **more) for kind, inputs, output, more in layers]
    graph = helper.make_graph(
        nodes,
        "made up",
        [helper.make_tensor_value_info("image", dtype, list(sizes))],
        [helper.make_tensor_value_info(name, made, None) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


def convolution(path: Path, n_out: int = 2, *, width: int = 3, last: str = "", **changes: Any) -> Path:
    """One padded convolution, and a last layer if one is named."""
    weights = np.random.default_rng(0).standard_normal((n_out, 1, width, width)).astype(np.float32)
    pads = [width // 2] * 4
    layers = [("Conv", ["image", "weights"], "scores" if last else "out", {"pads": pads})]
    if last:
        layers.append((last, ["scores"], "out", {"axis": 1} if last == "Softmax" else {}))
    return write_onnx(path, layers, {"weights": weights}, **changes)


def write_package(
    folder: Path,
    *,
    weights: Path | None = None,
    old: bool = False,
    preprocessing: Sequence[dict[str, Any]] = ({"id": "zero_mean_unit_variance", "kwargs": {"axes": ["x", "y"]}},),
    halo: int = 2,
    changes: dict[str, Any] | None = None,
    image: np.ndarray | None = None,
    wanted: np.ndarray | None = None,
) -> Path:
    """A package of the model zoo, format 0.5 or 0.4, around an ONNX file."""
    folder.mkdir(parents=True)
    target = folder / "weights.onnx"
    if weights is None:
        convolution(target)
    else:
        shutil.copyfile(weights, target)
    image = np.random.default_rng(1).normal(100, 20, (1, 1, 64, 64)).astype(np.float32) if image is None else image
    if wanted is None:
        values = image.astype(np.float64)
        wanted = run_onnx(target, (values - values.mean()) / (values.std() + 1e-6))
    np.save(folder / "in.npy", image)
    np.save(folder / "out.npy", wanted)
    content = _old(preprocessing, halo) if old else _new(preprocessing, halo)
    content |= {"type": "model", "name": "made up", "weights": {"onnx": {"source": "weights.onnx"}}, **(changes or {})}
    (folder / "rdf.yaml").write_text(yaml.safe_dump(content))
    return folder


def _new(preprocessing: Sequence[dict[str, Any]], halo: int) -> dict[str, Any]:
    def space(letter: str, **more: Any) -> dict[str, Any]:
        return {"type": "space", "id": letter, "size": 64, **more}

    first = [{"type": "batch"}, {"type": "channel", "channel_names": ["nuclei"]}]
    return {
        "format_version": "0.5.4",
        "inputs": [
            {
                "id": "raw",
                "axes": [*first, *(space(letter, scale=0.5, unit="micrometer") for letter in "yx")],
                "test_tensor": {"source": "in.npy"},
                "preprocessing": list(preprocessing),
            }
        ],
        "outputs": [
            {
                "id": "scores",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["a", "b"]}]
                + [space(letter, halo=halo) for letter in "yx"],
                "test_tensor": {"source": "out.npy"},
            }
        ],
    }


def _old(preprocessing: Sequence[dict[str, Any]], halo: int) -> dict[str, Any]:
    steps = [{"name": step["id"], "kwargs": {**step.get("kwargs", {}), "axes": "xy"}} for step in preprocessing]
    return {
        "format_version": "0.4.9",
        "inputs": [{"name": "raw", "axes": "bcyx", "shape": [1, 1, 64, 64], "preprocessing": steps}],
        "outputs": [{"name": "scores", "axes": "bcyx", "halo": [0, 0, halo, halo]}],
        "test_inputs": ["in.npy"],
        "test_outputs": ["out.npy"],
    }


def zipped(folder: Path, names: dict[str, str] | None = None) -> Path:
    """A package as a zip; `names` gives files other names in it."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, (names or {}).get(file.name, file.name))
    return path
