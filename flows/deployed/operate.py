"""How stages handle failures: what is retried, and how errors say how to resume."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar, cast

from prefect import get_client, task
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.sync import concurrency
from prefect.runtime import flow_run, task_run
from prefect.task_engine import TaskRunTimeoutError
from pydantic.fields import FieldInfo

from segment_slide.cluster.describe import describe_cluster
from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.table import is_elsewhere
from segment_slide.pipeline.errors import IncompleteError, InputError
from segment_slide.pipeline.plain_text import neutralise

P = ParamSpec("P")
R = TypeVar("R")

RETRY_AFTER_S = 30
_GO_ON = "Run the flow again with the same parameters to go on: what is done is kept."
_MEND_FIRST = "What is named would fail again: mend it first. Then the flow goes on with the same parameters."
_LEASE_S = 60.0  # the shortest that Prefect allows; after a run was killed, others wait for this long


def is_worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a retry may succeed: blocks were left undone, workers did not come, or a connection broke.

    A retry does not help against bad input, a changed model or an output of another run. A stage that exceeded its time
    limit is not retried either.
    """
    error = state.result(raise_on_failure=False)
    may_pass = isinstance(error, IncompleteError | ClusterError | ConnectionError | TimeoutError)
    may_pass = may_pass and getattr(error, "may_pass", True)
    return may_pass and not isinstance(error, TaskRunTimeoutError)


def last_name(location: str) -> str:
    """The last part of a path or URL, which people use as its name.

    >>> last_name("s3://slides/2026/a.ome.zarr/"), last_name("/")
    ('a.ome.zarr', '/')
    """
    return location.rstrip("/").rpartition("/")[2] or location


def name_flow_run(template: str) -> Callable[[], str]:
    """Make a function that names runs of a flow from a template of its parameters; paths are shortened."""

    def name() -> str:
        parameters = flow_run.parameters
        return neutralise(template.format_map({key: last_name(f"{value}") for key, value in parameters.items()}))

    return name


def stage(name: str, run_name: Callable[[Any], str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function a Prefect task that is a stage of a flow. It is retried, as it resumes where it was interrupted.

    Parameters
    ----------
    name : str
        Name of the task.
    run_name : callable
        Makes the name of a run from the request.
    """
    decorate = task(
        name=name,
        task_run_name=lambda: neutralise(run_name(task_run.parameters["request"])),
        retries=1,
        retry_delay_seconds=RETRY_AFTER_S,
        retry_condition_fn=is_worth_a_retry,
        cache_policy=NO_CACHE,  # no cache is needed: a stage skips what its outputs already hold
        persist_result=False,
    )
    return cast(Callable[[Callable[P, R]], Callable[P, R]], decorate)


def limited(stage: Callable[P, R], hours: float | None) -> Callable[P, R]:
    """Limit a stage to this many hours."""
    if hours is None:
        return stage
    task = cast(Any, stage).with_options(timeout_seconds=hours * 3600)

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return cast(R, task(*args, **kwargs))
        except TaskRunTimeoutError as error:
            raise IncompleteError(
                f"the stage {task.name!r} took longer than stage_hours={hours:g} allows; give it more hours or workers."
            ) from error

    return run


@contextlib.contextmanager
def saying_how_to_go_on() -> Iterator[None]:
    """Extend an error about unfinished work by how to resume.

    Raises
    ------
    IncompleteError
        The same error, with a sentence that says how to resume.
    """
    try:
        yield
    except IncompleteError as error:
        raise IncompleteError(
            f"{error}\n{_GO_ON if error.may_pass else _MEND_FIRST}", may_pass=error.may_pass
        ) from error


_has_the_machine: ContextVar[bool] = ContextVar("has_the_machine", default=False)


@contextlib.contextmanager
def having_the_machine(cluster: str = "local") -> Iterator[None]:
    """Let only one flow at a time use this machine's cores or GPUs, whichever deployment started it.

    The flow holds a named slot of the Prefect server. The server frees the slot a minute after its holder is gone. A
    flow inside a flow that holds the slot needs none. Jobs and schedulers elsewhere have their own queues.
    """
    if _has_the_machine.get() or is_elsewhere(describe_cluster(cluster)):
        yield
        return
    name = f"segment-slide on {socket.gethostname()}"
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, 1)
    with concurrency(name, occupy=1, lease_duration=_LEASE_S):
        token = _has_the_machine.set(True)
        try:
            yield
        finally:
            _has_the_machine.reset(token)


def check_given(**parameters: Any) -> None:
    """Refuse a flow that was called from Python without a required parameter.

    Prefect itself would pass the parameter's description on as its value.

    Raises
    ------
    InputError
        If a parameter is missing; the message names it.
    """
    missing = [name for name, value in parameters.items() if isinstance(value, FieldInfo)]
    if missing:
        raise InputError(f"{', '.join(missing)}: missing; expected a value.")
