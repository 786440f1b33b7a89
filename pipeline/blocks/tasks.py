"""How all stages run their tasks, and what happens to a task that fails.

::

    first try       all tasks, a bounded number at a time
                    ├── full disk, unusable input or network: every task would fail, the run ends at once
                    └── any other error: it is noted, all other tasks go on
    second try      the failed tasks. If its worker died, a task now runs alone: another task may have ended the worker
    given up        tasks that failed again are named; all others are done. The same command continues the run

A stage that sums over all tasks never returns a partial sum: if a task failed, the stage raises.
"""

import contextlib
import logging
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

from segment_slide.pipeline.blocks.attempts import run_tasks
from segment_slide.pipeline.errors import (
    Failure,
    IncompleteError,
    InputError,
    OutputError,
    PipelineError,
    TasksFailedError,
    UnreachableError,
    WorkerDiedError,
    is_of_content,
)
from segment_slide.unet.errors import UnetError

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")
Attempts = Generator[tuple[Item, Result | None, Exception | None]]

log = logging.getLogger(__name__)

_SHOWN = 10
# Deaths in a row that end a run. A task that shares its worker may die through its neighbours; a task that runs alone
# dies only by itself, so fewer deaths are enough.
MOST_DEATHS, MOST_DEATHS_ALONE = 24, 6


@dataclass(frozen=True)
class Wording:
    """How a stage speaks of its tasks in messages.

    Parameters
    ----------
    given_up : str
        Text between the number of tasks that failed twice and their list.
    kept : str
        Text at the end of the message if the run ends at once.
    plural : str
        Plural name of the tasks.
    """

    given_up: str = "step(s) could not be done; all others are kept:"
    kept: str = "What is done is kept."
    plural: str = "steps"


STEPS = Wording()


def run_all(
    client: "Client | None",
    function: Callable[[Item], Result],
    items: Iterable[Item],
    name: Callable[[Item], str],
    *,
    batch: int = 1,
    first_tries: "Attempts[Item, Result] | None" = None,
    wording: Wording = STEPS,
) -> Generator[tuple[Item, Result]]:
    """Call a function for each item; yield items and results in order of completion. Failed items are tried once more.

    Parameters
    ----------
    client : Client or None
        Where to run; None runs in this process, one item after the other.
    function : callable
        Picklable; its result depends on the item alone.
    items : iterable
        Picklable items, consumed lazily.
    name : callable
        What an item is called in messages, e.g. "block (0, 3)".
    batch : int
        Items per Dask task.
    first_tries : generator of (item, result, error), optional
        First tries that run in another way, e.g. as chunks of one Dask array or in threads; then `items` is not used.
    wording : Wording
        How the stage speaks of its tasks.

    Raises
    ------
    TasksFailedError
        After all other items are done, naming those that failed twice.
    IncompleteError
        At once, if the output cannot be written, or too many tasks in a row end their workers.
    InputError
        At once, if the input or the network is unusable; its cause is the task's own error.
    """
    failed: list[tuple[Item, Exception]] = []
    attempts = run_tasks(client, function, items, batch=batch) if first_tries is None else first_tries
    with contextlib.closing(attempts):
        for item, result, error in while_some_survive(attempts, MOST_DEATHS * batch, name, wording):
            if error is None:
                yield item, cast(Result, result)
            else:
                _end_if_all_would_fail(name(item), error, wording)
                log.info("%s failed: %s", name(item), error)
                failed.append((item, error))
    given_up: list[Failure] = []
    with contextlib.closing(_try_again(client, function, failed)) as attempts:
        for item, result, error in while_some_survive(attempts, MOST_DEATHS_ALONE, name, wording):
            if error is None:
                yield item, cast(Result, result)
            else:
                _end_if_all_would_fail(name(item), error, wording)
                given_up.append(Failure(item, name(item), error))
    if given_up:
        raise explain_failures(given_up, wording)


def _try_again(
    client: "Client | None", function: Callable[[Item], Result], failed: Sequence[tuple[Item, Exception]]
) -> "Attempts[Item, Result]":
    """Second tries: together where a task failed by itself, one at a time where its worker died."""
    alone = [item for item, error in failed if isinstance(error, WorkerDiedError)]
    others = [item for item, error in failed if not isinstance(error, WorkerDiedError)]
    with contextlib.closing(run_tasks(client, function, others)) as attempts:
        for item, result, error in attempts:
            if isinstance(error, WorkerDiedError):  # another task may have ended it
                alone.append(item)
            else:
                yield item, result, error
    for item in alone:
        with contextlib.closing(run_tasks(client, function, [item])) as attempts:
            yield from attempts


def _end_if_all_would_fail(name: str, error: Exception, wording: Wording) -> None:
    """End the run if every other task would fail with this error too."""
    if isinstance(error, UnreachableError | FileNotFoundError):
        return  # it may answer, or be there, the next time
    if isinstance(error, InputError | UnetError):
        raise InputError(f"{name}: {error}") from error
    if isinstance(error, OutputError):
        raise IncompleteError(f"{name}: {str(error).rstrip('.')}. {wording.kept}") from error


def explain_failures(failures: Sequence[Failure], wording: Wording = STEPS) -> TasksFailedError:
    """The error that names the tasks that failed twice, sorted by name; of many, only the first ones."""
    failures = sorted(failures, key=lambda failure: _numbers_as_numbers(failure.name))
    shown = [f"  {failure.name}: {failure.error}" for failure in failures[:_SHOWN]]
    more = [f"  … and {len(failures) - _SHOWN} more"] if len(failures) > _SHOWN else []
    return TasksFailedError("\n".join([f"{len(failures)} {wording.given_up}", *shown, *more]), failures)


def _numbers_as_numbers(name: str) -> list[str | int]:
    """Key for sorting: block (2, 0) before block (10, 0)."""
    return [int(part) if part.isdecimal() else part for part in re.split("([0-9]+)", name)]


def while_some_survive(
    attempts: "Iterable[tuple[Item, Result | None, Exception | None]]",
    most_in_a_row: int,
    name: Callable[[Item], str],
    wording: Wording = STEPS,
) -> "Attempts[Item, Result]":
    """Yield attempts as they come, until too many tasks in a row ended their workers: the next ones would do so too.

    Raises
    ------
    IncompleteError
        If so. Otherwise each block of a slide could end workers four times, and four times more when it runs alone.
    """
    in_a_row = 0
    for item, result, error in attempts:
        in_a_row = in_a_row + 1 if isinstance(error, WorkerDiedError) else 0
        if in_a_row >= most_in_a_row:
            raise IncompleteError(
                f"{in_a_row} {wording.plural} in a row ended their workers, the last of them {name(item)}: {error}. "
                f"What is done is kept. If memory was short, give each worker more of it."
            )
        yield item, result, error


@contextlib.contextmanager
def keeping_what_is_done(kept: str = STEPS.kept) -> Generator[None]:
    """Report any error that ends a begun run as `IncompleteError`: the same command continues the run.

    Raises
    ------
    IncompleteError
        Instead of any other error of the pipeline.
    """
    try:
        yield
    except IncompleteError:
        raise
    except PipelineError as error:
        raise IncompleteError(f"{str(error).rstrip('.')}. {kept}", may_pass=not is_of_content(error)) from error
