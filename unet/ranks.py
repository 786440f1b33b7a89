"""Several processes of one machine that train one network together, one per GPU, each on its own tiles.

The calling process is rank 0 and starts the others. If one of them ends, the others are ended too. Gradients are
averaged by torch's DistributedDataParallel, so n processes with batch size b act like one process with n * b.
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

_PATIENCE_S = 10  # time for the other processes to end by themselves
# All processes run on one machine. Without these, gloo and NCCL look up the host name, which may have no address.
_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


@dataclass(frozen=True)
class Ranks:
    """Place of a process among those that train together.

    Parameters
    ----------
    rank, size : int
        Number of this process, and number of all.
    device : torch.device
        Device of this process.
    """

    rank: int
    size: int
    device: torch.device

    def wrap(self, model: nn.Module) -> nn.Module:
        """Wrap a network so that gradients are averaged over all processes; it takes over the weights of rank 0."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum arrays over all processes, elementwise in float64; each process gets the same result."""
        if self.size == 1:
            return values.astype(np.float64)
        total = torch.from_numpy(values.astype(np.float64)).to(self.device)
        distributed.all_reduce(total)
        return total.cpu().numpy()

    def gather(self, values: Sequence[float]) -> list[float]:
        """Concatenate the values of rank 0, rank 1 and so on; each process gets the same list."""
        if self.size == 1:
            return list(values)
        table = np.zeros((self.size, len(values)))
        # Rows of other ranks are 0 from the start. Multiplying them by 0 would not do: NaN times 0 is NaN.
        table[self.rank] = np.nan_to_num(values, nan=np.inf, posinf=np.inf, neginf=np.inf)
        return self.sum(table).ravel().tolist()


def count_processes(device: torch.device) -> int:
    """Number of processes: one per GPU; 1 on a CPU, because one process uses all its cores."""
    return max(1, torch.cuda.device_count()) if device.type == "cuda" else 1


def device_of(device: torch.device, rank: int) -> torch.device:
    """Device of a rank.

    Raises
    ------
    DeviceError
        If there are fewer GPUs than processes.
    """
    if device.type != "cuda":
        return device
    if rank >= torch.cuda.device_count():
        raise DeviceError(
            f"{rank + 1} processes were requested, one per GPU, but only {torch.cuda.device_count()} GPU(s) are here."
        )
    return torch.device("cuda", rank)


@contextlib.contextmanager
def start_ranks(
    size: int, device: torch.device, work: Callable[[Ranks], object], folder: Path | None = None
) -> Iterator[Ranks]:
    """Start the other processes and yield this process's rank; the others are ended when the body ends or fails.

    Parameters
    ----------
    size : int
        Number of processes, this one included.
    device : torch.device
        Kind of device.
    work : callable
        Function that the others run, called with their rank; must be picklable.
    folder : Path, optional
        Folder in which they find each other, in a subfolder ``ranks-…``; by default the folder for temporary files.

    Raises
    ------
    RankError
        If one of the others ended too early.
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
        except RuntimeError as error:  # raised by torch if the connection to another process breaks
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
    """Rank and exit code of a process that failed; waits a moment, because its end may be seen late."""
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
        sys.exit(1)  # rank 0 gets the same error and reports it


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
    """Set variables for this process and for those that it starts, and restore them afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: value for name, value in values.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
