"""How stages behave when something fails: what is tried again, what is said, and how to go on."""

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

P = ParamSpec("P")
R = TypeVar("R")

RETRY_AFTER_S = 30
_LEASE_S = 60.0  # the shortest that Prefect allows; a run that was killed keeps others waiting for so long


def is_worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a second try may do better: blocks were left undone, workers did not come, a connection broke.

    Bad input, a changed model or an output of something else stay what they are, and a stage's time is its time.
    """
    error = state.result(raise_on_failure=False)
    may_pass = isinstance(error, IncompleteError | ClusterError | ConnectionError | TimeoutError)
    return may_pass and not isinstance(error, TaskRunTimeoutError)


def last_name(location: str) -> str:
    """The last part of a path or URL, which is what people call it.

    >>> last_name("s3://slides/2026/a.ome.zarr/"), last_name("/")
    ('a.ome.zarr', '/')
    """
    return location.rstrip("/").rpartition("/")[2] or location


def name_flow_run(template: str) -> Callable[[], str]:
    """How runs of a flow are called: a template of its parameters, of paths their last names."""

    def name() -> str:
        parameters = flow_run.parameters
        return template.format_map({key: last_name(f"{value}") for key, value in parameters.items()})

    return name


def stage(name: str, run_name: Callable[[Any], str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A Prefect task that is a stage of a flow: it goes on where it was interrupted, so that it can be tried again.

    Parameters
    ----------
    name : str
        Of the task.
    run_name : callable
        Of its request: how its runs are called.
    """
    decorate = task(
        name=name,
        task_run_name=lambda: run_name(task_run.parameters["request"]),
        retries=1,
        retry_delay_seconds=RETRY_AFTER_S,
        retry_condition_fn=is_worth_a_retry,
        cache_policy=NO_CACHE,  # the outputs are the memory: what is there is not done again
        persist_result=False,
    )
    return cast(Callable[[Callable[P, R]], Callable[P, R]], decorate)


def limited(stage: Callable[P, R], hours: float | None) -> Callable[P, R]:
    """A stage that ends after so many hours."""
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
    """Add to an error that leaves something undone how the rest gets done.

    Raises
    ------
    IncompleteError
        With the remedy.
    """
    try:
        yield
    except IncompleteError as error:
        raise IncompleteError(
            f"{error}\nRun the flow again with the same parameters to go on: what is done is kept."
        ) from error


_has_the_machine: ContextVar[bool] = ContextVar("has_the_machine", default=False)


@contextlib.contextmanager
def having_the_machine(cluster: str = "local") -> Iterator[None]:
    """Take turns with every other flow that works on this machine's cores or GPUs, whichever deployment began it.

    A named slot of the server, which it frees when its holder is gone (after a minute). Flows inside a flow that
    has it need none; jobs and schedulers elsewhere have their own queues.
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
    """Refuse a flow that was called from Python without what it needs: Prefect would pass the description on.

    Raises
    ------
    InputError
        Naming what is missing.
    """
    missing = [name for name, value in parameters.items() if isinstance(value, FieldInfo)]
    if missing:
        raise InputError(f"{', '.join(missing)}: missing; expected a value.")
