"""Values of options that several commands share, or that are lists: "DAPI,2", "0.5,0.75", "32,128,128"."""

from typing import Annotated

import typer

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
