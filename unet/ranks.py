"""Processes of one machine that train one network together, each on its own tiles: one per GPU.

The calling process is rank 0; it starts the others, and whichever of them ends takes the others with it. Gradients are
averaged by torch's DistributedDataParallel, so n processes with a batch of b are one process with a batch of n * b.
"""

import contextlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from segment_slide.unet.errors import DeviceError, RankError, UnetError
from segment_slide.unet.train_settings import MEETING_PREFIX

_PATIENCE_S = 10  # for the other processes to end by themselves
# All on one machine: without these, gloo and NCCL look for the address of the host's name, which may be none.
_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


@dataclass(frozen=True)
class Ranks:
    """Place of this process among those that train together.

    Parameters
    ----------
    rank, size : int
        Which one, of how many.
    device : torch.device
        Its own.
    """

    rank: int
    size: int
    device: torch.device

    def wrap(self, model: nn.Module) -> nn.Module:
        """The network whose gradients are averaged over all processes; its weights become those of rank 0."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Elementwise sum over all processes, float64, the same on each."""
        if self.size == 1:
            return values.astype(np.float64)
        total = torch.from_numpy(values.astype(np.float64)).to(self.device)
        distributed.all_reduce(total)
        return total.cpu().numpy()

    def gather(self, values: Sequence[float]) -> list[float]:
        """The values of rank 0, then those of rank 1, and so on: the same list on each."""
        if self.size == 1:
            return list(values)
        table = np.zeros((self.size, len(values)))
        # NaN times 0 is NaN, so the others' rows are set and not multiplied
        table[self.rank] = np.nan_to_num(values, nan=np.inf, posinf=np.inf, neginf=np.inf)
        return self.sum(table).ravel().tolist()


def count_processes(device: torch.device) -> int:
    """As many as there are GPUs; 1 on a CPU, whose cores one process uses."""
    return max(1, torch.cuda.device_count()) if device.type == "cuda" else 1


def device_of(device: torch.device, rank: int) -> torch.device:
    """The device of a rank.

    Raises
    ------
    DeviceError
        If there are fewer GPUs than processes.
    """
    if device.type != "cuda":
        return device
    if rank >= torch.cuda.device_count():
        raise DeviceError(
            f"{rank + 1} processes were asked for, one per GPU, but {torch.cuda.device_count()} are here."
        )
    return torch.device("cuda", rank)


@contextlib.contextmanager
def start_ranks(
    size: int, device: torch.device, work: Callable[[Ranks], object], folder: Path | None = None
) -> Iterator[Ranks]:
    """Start the other processes and yield this one's place; end them however the body ends.

    Parameters
    ----------
    size : int
        Processes, this one included.
    device : torch.device
        Kind of device.
    work : callable
        What the others run, given their place; picklable.
    folder : Path, optional
        Where they meet, in a folder of its own called ``ranks-…``; by default that for temporary files.

    Raises
    ------
    RankError
        If one of the others ended before its time.
    """
    for rank in range(size):
        device_of(device, rank)
    if size == 1:
        yield Ranks(0, 1, device)
        return
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix=MEETING_PREFIX, dir=folder) as place, _environment(_LOOPBACK):
        meeting = str(Path(place, "meeting"))
        others = [
            context.Process(target=_run_rank, args=(rank, size, device, meeting, work), daemon=True)
            for rank in range(1, size)
        ]
        for process in others:
            process.start()
        try:
            with _joined(0, size, device, meeting) as ranks:
                yield ranks
        except RuntimeError as error:  # torch's, where the connection to another process breaks
            if isinstance(error, UnetError) or not (ended := _find_ended(others)):
                raise
            raise RankError(
                f"process {ended[0]} of {size} ended with exit code {ended[1]} while they trained together; the last "
                f"state is kept."
            ) from error
        finally:
            for process in others:
                process.join(_PATIENCE_S)
                process.kill()


def _find_ended(others: "Sequence[BaseProcess]") -> tuple[int, int] | None:
    """Rank and exit code of a process that failed; its own end may take a moment to be seen."""
    for rank, process in enumerate(others, start=1):
        process.join(_PATIENCE_S / len(others))
        if process.exitcode:
            return rank, process.exitcode
    return None


def _run_rank(rank: int, size: int, device: torch.device, meeting: str, work: Callable[[Ranks], object]) -> None:
    try:
        with _joined(rank, size, device, meeting) as ranks:
            work(ranks)
    except (UnetError, KeyboardInterrupt):
        sys.exit(1)  # rank 0 meets the same, and says so


@contextlib.contextmanager
def _joined(rank: int, size: int, device: torch.device, meeting: str) -> Iterator[Ranks]:
    place = device_of(device, rank)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    backend = "nccl" if place.type == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=size)
    try:
        yield Ranks(rank, size, place)
    finally:
        distributed.destroy_process_group()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Variables for this process and those it starts, as they were afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: value for name, value in values.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
