"""An imported ONNX network behind `unet.network`: run by onnxruntime, one thread per tile.

Threads of a pass would change the last bits of its result, so each pass runs on one core, as torch's do.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segment_slide.unet.engines.config import METADATA_KEY, ImportedConfig, ImportedDescription
from segment_slide.unet.errors import CheckpointError, DeviceError
from segment_slide.unet.file_checksum import hash_file
from segment_slide.unet.geometry import Locality

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_PROBABILITY_EPS = 1e-7  # probabilities of 0 and 1 would have infinite scores
_EXTRA = "install it with: pip install 'segment-slide[onnx]'"


def import_runtime() -> Any:
    """The module onnxruntime.

    Raises
    ------
    CheckpointError
        If it is not installed.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise CheckpointError(f"ONNX networks need onnx and onnxruntime ({error}); {_EXTRA}.") from None
    del onnx
    return onnxruntime


def make_session(content: str | bytes, device: str = "cpu") -> Any:
    """A session that gives equal bits wherever a tile lies: one thread, no arena that keeps memory.

    Raises
    ------
    CheckpointError
        If onnxruntime refuses the network.
    DeviceError
        If it cannot use the device.
    """
    runtime = import_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.log_severity_level = 4  # its warnings about constants are nobody's concern
    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    if provider not in runtime.get_available_providers():
        raise DeviceError(
            f"device={device}: this onnxruntime has {', '.join(runtime.get_available_providers())}; install the extra "
            f"[onnx-gpu] instead of [onnx], or choose device=cpu."
        )
    try:
        return runtime.InferenceSession(content, options, providers=[provider])
    except Exception as error:
        raise CheckpointError(f"onnxruntime cannot use the network: {error!s:.300}") from error


@dataclass(frozen=True)
class OnnxNetwork:
    """An imported network whose record was read and checked; see `unet.open_network.StoredNetwork`.

    Attributes
    ----------
    path : Path
        The file.
    config : ImportedConfig
        The record in it.
    """

    path: Path
    config: ImportedConfig

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal sha256 of the whole file, record included."""
        return hash_file(self.path)

    @property
    def description(self) -> ImportedDescription:
        """The network in numbers."""
        return self.config.description

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions that it runs in: its own."""
        return ("float32",)

    @property
    def runtime(self) -> str:
        """Name and version of the program that runs it here: they decide the last bits."""
        return f"onnxruntime {import_runtime().__version__}"

    def check_weights(self) -> None:
        """Read all weights once; refuse NaN and infinite ones."""
        from segment_slide.unet.engines.onnx_graph import expect_finite, read_model

        expect_finite(read_model(self.path), self.path)

    def load(self, device: "torch.device", precision: str) -> "OnnxPass":
        """Prepare it on a device: see `unet.network.Network`.

        Raises
        ------
        DeviceError
            If the precision is not float32.
        """
        if precision not in self.precisions:
            raise DeviceError(f"precision={precision}: an ONNX network runs in float32, as it was exported.")
        session = make_session(str(self.path), device.type)
        return OnnxPass(session, self.config, self.description.axes)


@dataclass(frozen=True)
class OnnxPass:
    """Forward pass of an ONNX network that returns only the scores of the pixels that the tile owns."""

    session: Any
    config: ImportedConfig
    axes: tuple[Locality, ...]

    def __call__(self, batch: "Tensor", /) -> "Tensor":
        """Scores (n, n_classes, *tile), float32, of tiles with their halos (n, in_channels, *spatial)."""
        import torch

        images = np.ascontiguousarray(batch.cpu().numpy(), np.float32)
        scores = np.stack([self._scores(image) for image in images])
        return torch.from_numpy(scores).to(batch.device)

    def _scores(self, image: np.ndarray) -> np.ndarray:
        name = self.session.get_inputs()[0].name
        (answer,) = self.session.run(None, {name: image[None]})
        kept = [slice(None)]
        for axis, measured, size in zip(self.axes, self.config.locality.axes, image.shape[1:], strict=True):
            start = axis.halo - measured.crop
            kept.append(slice(start, start + size - 2 * axis.halo))
        return to_scores(answer[0][tuple(kept)], self.config.meaning, len(self.config.classes))


def to_scores(answer: np.ndarray, meaning: str, n_classes: int) -> np.ndarray:
    """Scores of which softmax makes the probabilities that the network means.

    Parameters
    ----------
    answer : ndarray, (k, *spatial), float32
        What the network gave.
    meaning : {"scores", "probabilities"}
        What it is.
    n_classes : int
        k; or k + 1, where no channel is the background's.

    Returns
    -------
    ndarray, (n_classes, *spatial), float32

    Examples
    --------
    >>> to_scores(np.array([[0.5]], np.float32), "probabilities", 2).tolist()
    [[0.0], [0.0]]
    """
    has_background = len(answer) == n_classes
    scores = answer
    if meaning == "probabilities":
        scores = np.clip(answer, _PROBABILITY_EPS, 1 - _PROBABILITY_EPS)  # NaN stays NaN
        scores = np.log(scores) if has_background else np.log(scores) - np.log1p(-scores)
    if not has_background:
        scores = np.concatenate([np.zeros_like(scores[:1]), scores])
    return np.ascontiguousarray(scores, np.float32)


def open_onnx(path: Path) -> OnnxNetwork:
    """Read and check the record of an imported network; weights stay on disk.

    Raises
    ------
    CheckpointError
        If the file is no ONNX network that was imported.
    """
    import_runtime()
    from segment_slide.unet.engines.onnx_graph import read_model

    path = Path(path).absolute()
    model = read_model(path)
    records = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA_KEY not in records:
        raise CheckpointError(
            f"model={path} is an ONNX network that was not imported yet: nobody knows how large its context is, nor "
            f"how its input is scaled. Import it: segment-slide import-model {path.name} -o imported.onnx"
        )
    try:
        return OnnxNetwork(path, ImportedConfig.from_json(records[METADATA_KEY]))
    except CheckpointError as error:
        raise CheckpointError(f"model={path}: {error}") from error
