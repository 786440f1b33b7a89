"""Check every worker before the first block. A fault is then reported once per worker, not by a thousand blocks.

This file knows nothing of images. The caller passes the checks that the work needs, as named functions.
"""

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.spec import ClusterSpec
from segment_slide.cluster.table import find_job, find_kind
from segment_slide.cluster.versions import check_versions
from segment_slide.cluster.waiting import run_everywhere

if TYPE_CHECKING:
    from distributed import Client

Check = Callable[[], None]

_SHOWN = 10
GiB = 1 << 30


def preflight(
    client: "Client", spec: ClusterSpec, checks: Mapping[str, Check] | None = None, *, needed_bytes: int = 0
) -> None:
    """Check versions, memory, GPUs, and what else the work needs, on every worker.

    Parameters
    ----------
    client : Client
        Connected, with its workers.
    spec : ClusterSpec
        Complete; says whether GPUs were promised.
    checks : mapping of str to callable
        Each is a picklable function that returns None, or raises an error whose message says what to change.
    needed_bytes : int
        Memory that the plan gives to each worker.

    Raises
    ------
    ClusterError
        If a check fails. The message has one line for each fault: which worker, on which host, in which job, and what
        to change.
    """
    check_versions(client)
    found = run_everywhere(client, examine_worker, dict(checks or {}), may_fail=True)
    lines: list[str] = []
    for address, report in found.items():
        if isinstance(report, BaseException):
            lines.append(f"  worker {address}: cannot run our code ({report!r}); is segment-slide installed there?")
        else:
            lines += [f"  {report['who']}: {problem}" for problem in _judge(report, spec, needed_bytes)]
    if lines:
        more = [f"  … and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise ClusterError("\n".join(["the workers are not ready:", *lines[:_SHOWN], *more]))


def examine_worker(checks: Mapping[str, Check], dask_worker: Any = None) -> dict[str, Any]:
    """Report what a worker has and which checks fail there. Runs on the worker.

    Parameters
    ----------
    checks : mapping
        See `preflight`.
    dask_worker : Worker
        Given by Dask.
    """
    failures = {}
    for name, check in checks.items():
        try:
            check()
        except Exception as error:  # noqa: BLE001, any error means that this check failed, and is reported
            failures[name] = str(error) or type(error).__name__
    return {
        "who": _describe_worker(dask_worker),
        "memory_bytes": dask_worker.memory_manager.memory_limit,
        "gpu": _sees_gpu(),
        "gpu_variable": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "failures": failures,
    }


def _describe_worker(dask_worker: Any) -> str:
    job = find_job(os.environ)
    inside = f", {job.system} job {job.number}" if job else ""
    return f"worker {dask_worker.name} on {socket.gethostname()}{inside}"


def _sees_gpu() -> bool:
    """Whether this process has been given a GPU. Whether the work can use it is tested by a check of the caller."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return any(Path("/dev").glob("nvidia[0-9]*"))
    return named.split(",")[0].strip() not in ("", "-1", "NoDevFiles")


def _judge(report: dict[str, Any], spec: ClusterSpec, needed_bytes: int) -> list[str]:
    """What is wrong with a worker, in words."""
    remedies = find_kind(spec.kind).remedies(spec)
    problems = [f"{name}: {reason}" for name, reason in report["failures"].items()]
    memory = report["memory_bytes"]
    if memory and memory < needed_bytes:
        problems.append(
            f"memory: it has {memory / GiB:.2f} GiB, the plan needs {needed_bytes / GiB:.2f} GiB; give it more "
            f"{remedies.memory}, or choose a smaller --block"
        )
    if spec.has_gpus and not report["gpu"]:
        problems.append(f"gpu: none is visible (CUDA_VISIBLE_DEVICES={report['gpu_variable']!r}); {remedies.gpu}")
    return problems
