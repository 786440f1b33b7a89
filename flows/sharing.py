"""One set of workers for several stages: a batch system's queue is waited for once, not before each of them."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

from segment_slide.cluster.connect import connect
from segment_slide.cluster.spec import ClusterSpec

if TYPE_CHECKING:
    from distributed import Client


class SharedWorkers:
    """Workers that stay between stages which ask for the same; a stage that asks for others gets those instead."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._spec: ClusterSpec | None = None
        self._client: Client | None = None

    @contextlib.contextmanager
    def connect(self, spec: ClusterSpec) -> Iterator["Client"]:
        """As `cluster.connect.connect`; the workers of a stage that failed are not trusted with another."""
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
    """Let all stages inside use the same workers, as long as they ask for the same, until the outermost block ends."""
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
