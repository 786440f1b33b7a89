"""The workers of a command: complete their description, start them, and check them before the first block."""

import contextlib
import functools
import lzma
import os
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segment_slide.cluster.complete import complete_spec
from segment_slide.cluster.connect import connect
from segment_slide.cluster.describe import describe_cluster
from segment_slide.cluster.preflight import Check, preflight
from segment_slide.cluster.spec import ClusterSpec
from segment_slide.cluster.table import is_elsewhere
from segment_slide.flows.requests import Workers
from segment_slide.pipeline.blocks.attempts import SCHEDULER_GONE
from segment_slide.pipeline.errors import IncompleteError, InputError, OutputError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import StoredImage

if TYPE_CHECKING:
    from distributed import Client


def plan_cluster(workers: Workers, *, short_tasks: bool = False) -> ClusterSpec:
    """Describe completely the workers that a command would have. Nothing is started.

    Parameters
    ----------
    workers : Workers
        The user's choice; `cluster.describe.describe_cluster` reads the cluster. A time limit given here overrides the
        cluster's file; what is allowed here is allowed.
    short_tasks : bool
        Tasks take milliseconds and hold Python's lock for much of that time. On this machine the default is then one
        process per core instead of one per four cores.

    Raises
    ------
    ClusterError
        If there is no such cluster, or if it cannot be used from this machine.
    """
    spec = describe_cluster(workers.cluster, workers.workers)
    if workers.allow_unencrypted:
        spec = replace(spec, allow_unencrypted=True)
    if workers.block_time_limit_s is not None:
        spec = replace(spec, block_time_limit_s=workers.block_time_limit_s)
    return complete_spec(spec, short_tasks=short_tasks)


@contextlib.contextmanager
def open_cluster(spec: ClusterSpec, checks: Mapping[str, Check], *, needed_bytes: int = 0) -> Iterator["Client"]:
    """Start or join workers that are able to do the work.

    Parameters
    ----------
    spec : ClusterSpec
        Complete.
    checks : mapping
        Checks for workers on other machines. Workers on this machine can do what this process can.
    needed_bytes : int
        Memory that the plan gives to each worker.

    Raises
    ------
    ClusterError
        If workers do not connect, or if one of them fails a check.
    IncompleteError
        If the scheduler goes away.
    """
    shared = SHARED.get()
    with connect(spec) if shared is None else shared.connect(spec) as client:
        try:
            if is_elsewhere(spec):
                preflight(client, spec, checks, needed_bytes=needed_bytes)
            yield client
        except OSError as error:
            if client.status == "running":
                raise
            raise IncompleteError(f"{SCHEDULER_GONE} What is done is kept.") from error


def checks_of(
    *, reads: list[StoredImage], writes: str | None, model: tuple[str, str] | None = None
) -> dict[str, Check]:
    """Make the checks of what workers must be able to do.

    Parameters
    ----------
    reads : list of StoredImage
        Images that blocks are read from.
    writes : str, optional
        Store that blocks are written into; it must exist.
    model : (str, str), optional
        Path of the network and its sha256.
    """
    checks: dict[str, Check] = {f"input {image.location}": functools.partial(check_readable, image) for image in reads}
    if writes is not None:
        checks[f"output {writes}"] = functools.partial(check_writable, writes)
    if model is not None:
        checks[f"model {model[0]}"] = functools.partial(check_model, *model)
    return checks


def check_readable(image: StoredImage) -> None:
    """Read one pixel; runs on a worker. A damaged chunk passes: it is not the worker's fault, and its block reports it.

    Raises
    ------
    InputError
        If the image cannot be read; the message says what to change.
    """
    try:
        array = image.array()
        with contextlib.suppress(RuntimeError, ValueError, EOFError, zlib.error, lzma.LZMAError):  # what codecs raise
            try:
                array[tuple(slice(0, 1) for _ in array.shape)]
            except OSError as error:
                if error.errno is not None:  # errors of gzip and bz2 about damaged data have no errno
                    raise
    except Exception as error:
        raise InputError(f"it cannot be read ({error}); is the folder shared with this node?") from error
    if array.shape != image.shape:
        raise InputError(f"it has shape {array.shape} here, {image.shape} where the command runs")


def check_writable(location: str) -> None:
    """Write a file and delete it; runs on a worker. Object stores are not checked.

    Raises
    ------
    OutputError
        If nothing can be written; the message says what to change.
    """
    if store.is_remote(location):
        return
    file = Path(location, f".{uuid.uuid4().hex}.partial")
    try:
        file.touch(exist_ok=False)
        os.unlink(file)
    except OSError as error:
        raise OutputError(
            f"it cannot be written ({error}); is the folder shared with this node, and writable?"
        ) from error


def check_model(path: str, sha256: str) -> None:
    """Read the network; runs on a worker.

    Raises
    ------
    UnetError
        If the network cannot be read.
    InputError
        If it is another network.
    """
    from segment_slide.unet.open_network import open_network

    found = open_network(path).sha256
    if found != sha256:
        raise InputError(f"its sha256 is {found[:12]}… here and {sha256[:12]}… where the command runs; copy it again")


class SharedWorkers:
    """Keep workers between stages that request the same workers. A stage that requests others gets new ones."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._spec: ClusterSpec | None = None
        self._client: Client | None = None

    @contextlib.contextmanager
    def connect(self, spec: ClusterSpec) -> Iterator["Client"]:
        """As `cluster.connect.connect`. Workers of a stage that failed are ended and not used again."""
        if self._client is None or self._spec != spec or self._client.status != "running":
            self.close()
            self._client, self._spec = self._stack.enter_context(connect(spec)), spec
        try:
            yield self._client
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the workers."""
        self._client = self._spec = None
        self._stack.close()


SHARED: ContextVar[SharedWorkers | None] = ContextVar("shared_workers", default=None)


@contextlib.contextmanager
def sharing_workers() -> Iterator[None]:
    """Share workers between all stages in the body that request the same ones, until the outermost block ends."""
    if SHARED.get() is not None:
        yield
        return
    shared = SharedWorkers()
    token = SHARED.set(shared)
    try:
        yield
    finally:
        SHARED.reset(token)
        shared.close()
