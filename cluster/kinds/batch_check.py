"""Check a description of jobs for values that contradict each other."""

import socket

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.spec import ClusterSpec


def check_jobs(spec: ClusterSpec, title: str) -> None:
    """Refuse numbers of jobs, GPUs and times that contradict each other.

    Parameters
    ----------
    spec : ClusterSpec
        The description, complete or not.
    title : str
        Name of the batch system for messages.

    Raises
    ------
    ClusterError
        If values contradict each other; the message names them.
    """
    _check_counts(spec)
    _check_gpus(spec)
    if spec.host is not None and spec.interface is not None:
        raise ClusterError(f"host={spec.host} with interface={spec.interface}: expected one of them.")
    _check_lifetime(spec, title)


def _check_counts(spec: ClusterSpec) -> None:
    least, most = spec.minimum, spec.maximum
    if least is None and most is None:
        return
    if least is None or most is None:
        raise ClusterError(f"minimum={least}, maximum={most}: expected both or neither.")
    if spec.jobs is not None:
        raise ClusterError(f"jobs={spec.jobs} with minimum={least}: expected either a fixed number or both limits.")
    if least > most:
        raise ClusterError(f"minimum={least}, expected at most maximum={most}.")


def _check_gpus(spec: ClusterSpec) -> None:
    if spec.dask_cuda and not spec.gpus:
        raise ClusterError("dask_cuda=true with gpus=0: expected gpus of 1 or more.")
    if spec.gpus > 1 and not spec.dask_cuda:
        raise ClusterError(
            f"gpus={spec.gpus} with dask_cuda=false: a worker uses one GPU, the others would idle; expected gpus=1 "
            "or dask_cuda=true."
        )
    if spec.gpus and spec.processes not in (None, spec.gpus):
        raise ClusterError(f"processes={spec.processes}, expected gpus={spec.gpus}: one worker per GPU.")


def _check_lifetime(spec: ClusterSpec, title: str) -> None:
    lifetime, stagger = spec.lifetime_s, spec.stagger_s or 0
    if lifetime is not None and stagger >= lifetime:
        raise ClusterError(f"stagger={stagger} s, expected less than lifetime={lifetime} s.")
    if lifetime is not None and spec.walltime_s is not None and lifetime + stagger >= spec.walltime_s:
        raise ClusterError(
            f"lifetime={lifetime} s ± {stagger} s, expected to end before walltime={spec.walltime_s} s: {title} "
            "would kill the workers first."
        )


def check_interface(name: str | None) -> None:
    """Check that this machine has a network interface of that name, with an address that workers can reach.

    Raises
    ------
    ClusterError
        If it has none. The message names those that it has.
    """
    import psutil

    addresses = {
        interface: [found.address for found in entries if found.family == socket.AF_INET]
        for interface, entries in psutil.net_if_addrs().items()
    }
    if name is not None and not addresses.get(name):
        usable = ", ".join(sorted(interface for interface, found in addresses.items() if found))
        problem = "has no IPv4 address" if name in addresses else "does not exist on this machine"
        raise ClusterError(f"interface={name!r} {problem}; expected one of {usable}, or `host` with an address.")
