"""How close to this machine's limit a forward pass is: its operations per second over those of a plain matrix product.

    python benchmarks/limits.py [--bases 16 64] [--tiles 256 512 768 1024 1536] [--model M.safetensors]
    python benchmarks/limits.py --only gemm tiles paper

A convolution is a matrix product of (pixels, 9 x channels in) by (9 x channels in, channels out) once its input has
been copied out ("im2col"). So the rate of `torch.matmul` at these shapes, in the same precision and on one core, is
what can be hoped for; "of its layers" weighs each layer with the rate of its own shape, "of the best" divides by the
highest rate of all. More than 1 of its layers is possible: a good convolution reads its input once and im2col nine
times.

Processes have the environment that `cluster` gives to workers (huge pages, one thread). What is compared takes turns,
and the fastest call counts. With a GPU the same, and blocks of 4096 px and CUDA graphs.

Sections: gemm, tiles, layout (channels_last), threads (passes x threads), compile, edges (normalisation and argmax),
precision (time and labels of bfloat16 on ISBI 2012, with `--model` or initial weights), paper (512 x 512 with the
paper's network), cuda.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from common import Report, make_parser
from limits_passes import show_compile, show_layout, show_threads, show_tiles
from limits_predictor import show_cuda, show_edges, show_paper, show_precision
from limits_products import Products, show_products

from segment_slide.cluster.settings import ENVIRONMENT

SHOW: dict[str, Callable[[argparse.Namespace, Report, Products], None]] = {
    "gemm": show_products,
    "tiles": show_tiles,
    "layout": show_layout,
    "threads": show_threads,
    "compile": show_compile,
    "edges": show_edges,
    "precision": show_precision,
    "paper": show_paper,
    "cuda": show_cuda,
}


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=SHOW, default=list(SHOW))
    parser.add_argument("--bases", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--tiles", type=int, nargs="+", default=[256, 512, 768, 1024, 1536])
    parser.add_argument("--tile", type=int, default=512, help="of the comparisons (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slices", type=int, default=4, help="of ISBI 2012 (default: %(default)s)")
    parser.add_argument("--limit-s", type=float, default=30, help="of one pass in float32 (default: %(default)s)")
    parser.add_argument("--model", type=Path, help="checkpoint for the labels (default: initial weights)")
    arguments = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})
    torch.set_num_threads(1)
    report, products = Report(arguments), Products(max(3, arguments.rounds))
    for section, show in SHOW.items():
        if section in arguments.only:
            show(arguments, report, products)
    report.save()


if __name__ == "__main__":
    main()
