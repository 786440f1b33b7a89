"""Weights that are NaN or infinite are refused: their scores would be NaN, whose highest is class 0, "background"."""

from pathlib import Path

from segment_slide.unet.errors import CheckpointError


def expect_finite_weights(path: Path) -> None:
    """Read all weights of a checkpoint's file once, one tensor at a time (no torch).

    Parameters
    ----------
    path : Path
        A safetensors file of float32 tensors.

    Raises
    ------
    CheckpointError
        Naming the first tensor that holds NaN or infinity, and how many such values it has.
    """
    import numpy as np
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        for name in sorted(file.keys()):
            values = file.get_tensor(name)
            if n_bad := int(np.count_nonzero(~np.isfinite(values))):
                raise CheckpointError(
                    f"model={path}: {n_bad} of the {values.size} values of {name} are NaN or infinite, so that all "
                    f"would become background; expected finite weights. The training diverged, or the file is damaged."
                )
