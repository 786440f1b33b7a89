"""Segment microscopy slides and volumes of any size: this package is the one name that gets installed.

Its four parts lie beside it in the source tree and are linked into it: `unet` (the network), `pipeline` (arrays on
Zarr and Dask), `cluster` (workers), `flows` (commands and Prefect). Importing it loads none of them. Each error is
loaded at its first use::

    import segment_slide

    try:
        ...
    except segment_slide.PipelineError as error:
        ...
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segment_slide.cluster.errors import ClusterError, WorkersLostError
    from segment_slide.pipeline.errors import (
        BlockError,
        ChunkAccessError,
        IncompleteError,
        InputError,
        MissingError,
        NotFiniteError,
        NotNamedError,
        OtherImageError,
        OutputError,
        OutputMismatchError,
        PipelineError,
        PlanError,
        TasksFailedError,
        UnknownAxesError,
        UnreachableError,
        UnreadableChunkError,
        WorkerDiedError,
    )
    from segment_slide.unet.errors import (
        CheckpointError,
        DeviceError,
        DivergedError,
        GeometryError,
        NotLocalError,
        OptionError,
        RankError,
        ScoresError,
        TrainingDataError,
        UnetError,
    )

    __version__: str

__all__ = [
    "BlockError",
    "CheckpointError",
    "ChunkAccessError",
    "ClusterError",
    "DeviceError",
    "DivergedError",
    "GeometryError",
    "IncompleteError",
    "InputError",
    "MissingError",
    "NotFiniteError",
    "NotLocalError",
    "NotNamedError",
    "OptionError",
    "OtherImageError",
    "OutputError",
    "OutputMismatchError",
    "PipelineError",
    "PlanError",
    "RankError",
    "ScoresError",
    "TasksFailedError",
    "TrainingDataError",
    "UnetError",
    "UnknownAxesError",
    "UnreachableError",
    "UnreadableChunkError",
    "WorkerDiedError",
    "WorkersLostError",
    "__version__",
]

_ERRORS = {
    "cluster": ("ClusterError", "WorkersLostError"),
    "pipeline": (
        "BlockError",
        "ChunkAccessError",
        "IncompleteError",
        "InputError",
        "MissingError",
        "NotFiniteError",
        "NotNamedError",
        "OtherImageError",
        "OutputError",
        "OutputMismatchError",
        "PipelineError",
        "PlanError",
        "TasksFailedError",
        "UnknownAxesError",
        "UnreachableError",
        "UnreadableChunkError",
        "WorkerDiedError",
    ),
    "unet": (
        "CheckpointError",
        "DeviceError",
        "DivergedError",
        "GeometryError",
        "NotLocalError",
        "OptionError",
        "RankError",
        "ScoresError",
        "TrainingDataError",
        "UnetError",
    ),
}
_PART_OF = {name: part for part, names in _ERRORS.items() for name in names}


def __getattr__(name: str) -> object:
    """The version and the errors, loaded at their first use."""
    if name == "__version__":
        from importlib import metadata  # takes 50 ms, which few commands need

        return metadata.version("segment-slide")
    if name in _PART_OF:
        return getattr(importlib.import_module(f"segment_slide.{_PART_OF[name]}.errors"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "__version__", *_PART_OF])
