"""Values of options that several commands share, or that are lists: "DAPI,2", "0.5,0.75", "32,128,128"."""

from typing import Annotated

import typer

from segment_slide.pipeline.errors import InputError

Cluster = Annotated[
    str,
    typer.Option(
        metavar="WHERE",
        help="Where to work: local, cuda (all GPUs of this machine), slurm, a scheduler's address as "
        "tls://host:port, or a YAML file that says more.",
    ),
]

BlockTimeLimit = Annotated[
    int | None,
    typer.Option(
        metavar="SECONDS",
        help="End a worker that is busy with one task for longer, as when a file server hangs; the task is tried "
        "again elsewhere. Several times what a block takes (off by default).",
    ),
]


def split(text: str | None) -> tuple[str, ...]:
    """Parts between commas.

    >>> split("DAPI, 2")
    ('DAPI', '2')
    """
    return tuple(part.strip() for part in text.split(",")) if text else ()


def numbers(text: str | None, name: str) -> tuple[float, ...]:
    """Numbers given as "0.5,0.75"."""
    try:
        return tuple(float(part) for part in split(text))
    except ValueError as error:
        raise InputError(f"--{name}={text!r}, expected numbers like 0.5,0.75.") from error


def sizes(text: str | None, name: str) -> tuple[int, ...]:
    """Sizes given as "256" or "32,128,128"."""
    parts = split(text)
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--{name}={text!r}, expected a size in pixels like 256, or one per axis like 32,128,128.")
    return tuple(map(int, parts))
