"""Clusters whose workers are processes on this machine: what is checked before they start, and what they get.

This file imports Dask: import it only where it is needed.
"""

import contextlib
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any

from distributed import Client, LocalCluster

from segment_slide.cluster.configuration import exactly, note_broken_files
from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.kinds.pipes import pipes_for_queues
from segment_slide.cluster.patience import COMM_S
from segment_slide.cluster.processes import allow_open_files, start_cluster
from segment_slide.cluster.security import private_folder, temporary_security
from segment_slide.cluster.settings import SETTINGS, quieten

LOOPBACK = "127.0.0.1"

_SET_BY_DASK = "PYTHONHASHSEED", "__DASK_PARENT_PID"

# This process opens nine files for each worker: pipes and connections.
_FILES_PER_WORKER = 12


@contextlib.contextmanager
def run_cluster(cluster_class: type[LocalCluster], **options: Any) -> Iterator[Client]:
    """Start a cluster on this machine under exactly our configuration, yield a client, and end all processes.

    It is private: connections need the certificate of this cluster, HTTP servers have no pages, and the scratch folder
    is new and can be opened by the user only.

    Parameters
    ----------
    cluster_class : type
        LocalCluster or a class derived from it.
    options
        Its options; `n_workers` and `local_directory` among them.

    Raises
    ------
    ClusterError
        If it does not start, or not in time. Nothing is left running.
    """
    _start_tracker()
    allow_open_files(options["n_workers"] * _FILES_PER_WORKER)
    check_loopback()
    note_broken_files()
    quieten()
    with _scratch(options["local_directory"]) as scratch:
        settings = {**SETTINGS, "temporary-directory": scratch}  # the scheduler has no other option for it
        private = {"protocol": "tls://", "security": temporary_security(), "local_directory": scratch}
        with (
            exactly(settings),
            _same_environment(),
            pipes_for_queues(),
            start_cluster(cluster_class, **{**options, **private}) as (_, client),
        ):
            yield client


@contextlib.contextmanager
def _same_environment() -> Iterator[None]:
    """Give variables back their values at the end: Dask's nannies set those of the workers in this process, too.

    Without it, whatever a program starts later would get them: Python's ``-P``, and one core per process.
    """
    names = {*SETTINGS["distributed.nanny.pre-spawn-environ"], *_SET_BY_DASK}
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _scratch(folder: str | None) -> contextlib.AbstractContextManager[str]:
    """A new folder for what scheduler and workers write, in that folder or in the one for temporary files."""
    if folder is not None:
        return private_folder(os.path.expanduser(os.path.expandvars(folder)), "", key="local_directory")
    try:
        return private_folder(tempfile.gettempdir(), "", key="TMPDIR")
    except FileNotFoundError as error:
        raise ClusterError(f"workers need a folder for temporary files: {error.strerror}; set TMPDIR.") from None


def _start_tracker() -> None:
    """Start Python's helper that tidies semaphores, deaf to SIGHUP: a terminal that closes says so to all processes.

    If it ended first, the next one would print a traceback for each semaphore that it does not know.
    """
    if threading.current_thread() is not threading.main_thread():  # only there can signals be ignored for a while
        resource_tracker.ensure_running()
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        resource_tracker.ensure_running()
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL if before is None else before)


def check_loopback() -> None:
    """Connect to this process as workers will. Where that fails at once, Dask would try again and again.

    Raises
    ------
    ClusterError
        If there is no connection.
    """
    try:
        with socket.create_server((LOOPBACK, 0)) as server, socket.create_connection(server.getsockname(), COMM_S):
            pass
    except OSError as error:
        raise ClusterError(
            f"workers need the network interface of this machine alone, and {LOOPBACK} cannot be used: {error}. Switch "
            "the interface lo on."
        ) from None
