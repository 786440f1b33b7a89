"""Whether a task fits a worker. If it does not, the plan is refused, and the message names all amounts."""

from segment_slide.pipeline.blocks.sizes import MiB
from segment_slide.pipeline.errors import PlanError

# Measured on Linux with benchmarks/memory.py: Python with torch, dask, zarr and scipy loaded.
PROCESS_BYTES = 600 * MiB


def check_fits(needed_bytes: int, available_bytes: int, remedy: str, *, doing: str = "", made_of: str = "") -> None:
    """Refuse work that needs more memory than a worker has.

    Parameters
    ----------
    needed_bytes, available_bytes : int
        Of one worker.
    remedy : str
        What to change.
    doing : str
        What the worker does, as "with 3 tasks of 80.00 MiB".
    made_of : str
        What the amount consists of.

    Raises
    ------
    PlanError
        With the amounts and the remedy.

    Examples
    --------
    >>> check_fits(3 << 30, 2 << 30, "choose fewer `workers`", made_of="model 1.00 GiB")
    Traceback (most recent call last):
    segment_slide.pipeline.errors.PlanError: a worker needs 3.00 GiB (model 1.00 GiB) but has 2.00 GiB; choose fewer ...
    """
    if needed_bytes > available_bytes:
        worker, parts = f"a worker {doing}".rstrip(), f" ({made_of})" if made_of else ""
        raise PlanError(
            f"{worker} needs {format_bytes(needed_bytes)}{parts} but has {format_bytes(available_bytes)}; {remedy}."
        )


def format_bytes(n_bytes: float) -> str:
    """A number of bytes as readable text.

    >>> format_bytes(3 << 30), format_bytes(1500)
    ('3.00 GiB', '1.5 KiB')
    """
    for unit, size in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20)):
        if n_bytes >= size:
            return f"{n_bytes / size:.2f} {unit}"
    return f"{n_bytes / 1024:.1f} KiB"
