"""What a matrix product takes on this machine, shape by shape: the limit that `limits.py` measures passes against."""

import argparse
import math
from collections.abc import Callable, Iterator, Mapping

import torch
from common import Report, take_turns

from segment_slide.unet.architecture import Architecture

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PRECISIONS = tuple(DTYPES)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = DEVICE.type == "cuda"
MOST_ROWS = 1 << 20 if ON_GPU else 1 << 14  # of a matrix product; more rows are no faster


def synchronised(run: Callable[[], object]) -> Callable[[], None]:
    """A call that ends when the device has done its work."""

    def wait() -> None:
        with torch.inference_mode():
            run()
        if ON_GPU:
            torch.cuda.synchronize()

    return wait


def seconds_of(run: Callable[[], object], rounds: int) -> float:
    """Of the fastest of some calls."""
    return time_limits({"it": synchronised(run)}, rounds, least_s=0.5)["it"]


def time_limits(ways: Mapping[str, Callable[[], object]], rounds: int, least_s: float = 3) -> dict[str, float]:
    """Seconds of the fastest call of each way: a limit is asked for, and what else the machine does only hides it."""
    return take_turns(ways, rounds, least_s=least_s, pick=min)


def list_products(architecture: Architecture, tile: int) -> Iterator[tuple[int, int, int]]:
    """(pixels, inner size, channels out) of each convolution of a forward pass, as a matrix product."""
    size = architecture.geometry.read_size(tile)
    for level in range(architecture.depth + 1):
        width = architecture.channels(level)
        for channels in (architecture.in_channels if level == 0 else width // 2, width):
            size -= 2
            yield size**2, 9 * channels, width
        if level < architecture.depth:
            size //= 2
    for level in reversed(range(architecture.depth)):
        width = architecture.channels(level)
        yield size**2, 2 * width, 4 * width
        size *= 2
        for channels in (2 * width, width):
            size -= 2
            yield size**2, 9 * channels, width
    yield size**2, architecture.base_channels, architecture.n_classes


def prepare_product(rows: int, inner: int, columns: int, dtype: torch.dtype) -> Callable[[], object]:
    """A product of noise into memory that is there."""
    left = torch.randn(rows, inner, device=DEVICE).to(dtype)
    right = torch.randn(inner, columns, device=DEVICE).to(dtype)
    out = torch.empty(rows, columns, dtype=dtype, device=DEVICE)
    return lambda: torch.matmul(left, right, out=out)


class Products:
    """Rates (FLOP/s) of matrix products, each shape measured once, precisions in turns."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._rates: dict[tuple[int, int, str], float] = {}

    def rate(self, inner: int, columns: int, precision: str) -> float:
        """FLOP/s of (many, inner) by (inner, columns)."""
        if (inner, columns, precision) not in self._rates:
            # rows so that left and right together stay at some tens of MB
            rows = min(MOST_ROWS, max(256, (1 << 24) // inner))
            ways = {name: synchronised(prepare_product(rows, inner, columns, DTYPES[name])) for name in PRECISIONS}
            for name, took in time_limits(ways, self._rounds, least_s=1).items():
                self._rates[inner, columns, name] = 2 * rows * inner * columns / took
        return self._rates[inner, columns, precision]

    def best(self, precision: str) -> float:
        """The highest rate of all that were measured."""
        return max(rate for (_, _, kind), rate in self._rates.items() if kind == precision)

    def seconds(self, architecture: Architecture, tile: int, precision: str) -> float:
        """Of all products of a forward pass, one after the other."""
        products = list(list_products(architecture, tile))
        counted = sum(2 * math.prod(product) for product in products)
        if counted != architecture.forward_flops((tile, tile)):
            raise SystemExit(f"{counted} operations, the network counts {architecture.forward_flops((tile, tile))}")
        # scores are float32 whatever the precision of the features
        kinds = [*[precision] * (len(products) - 1), "float32"]
        return sum(
            2 * rows * inner * columns / self.rate(inner, columns, kind)
            for (rows, inner, columns), kind in zip(products, kinds, strict=True)
        )


def show_products(arguments: argparse.Namespace, report: Report, products: Products) -> None:
    """Rates by level of each network."""
    rows = []
    for base in arguments.bases:
        architecture = Architecture(base_channels=base)
        for level in range(architecture.depth + 1):
            width = architecture.channels(level)
            full, half = (products.rate(9 * width, width, precision) for precision in PRECISIONS)
            ratio = report.ratio(f"GEMM bfloat16 over float32, base {base}, level {level}", half / full)
            rows.append(
                [f"{base}", f"{level}", f"{9 * width} x {width}", f"{full / 1e9:.0f}", f"{half / 1e9:.0f}", ratio]
            )
    headings = ("base", "level", "matrix", "float32, GFLOP/s", "bfloat16, GFLOP/s", "ratio")
    report.table("Matrix products, one core" if not ON_GPU else "Matrix products", headings, rows)
