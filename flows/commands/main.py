"""The command line: ``segment-slide COMMAND``. Each command is a thin wrapper of a function that a flow also calls.

Exit codes: 0 done; 1 a fault of the program (with traceback); 2 the request cannot be carried out, nothing was changed;
3 some blocks were left undone, or `verify` found that something is not sound; 130 interrupted (Ctrl-C); 143 ended
(SIGTERM); 129 the terminal closed (SIGHUP). After these four the same command resumes, but for `verify`, which names
what to do. What can no longer be printed changes the code only of commands that do nothing else: 1 if a disk is full,
141 if the reader left, as of other tools.
"""

import logging
import multiprocessing
import os
import signal
import sys
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

import segment_slide
from segment_slide.cluster.configuration import keep_files_out
from segment_slide.cluster.errors import ClusterError, WorkersLostError
from segment_slide.cluster.settings import SAFE_PATH
from segment_slide.flows.commands import (
    cluster,
    demo,
    evaluate,
    import_model,
    info,
    ingest,
    instances,
    measure,
    report,
    segment,
    segment_new,
    streams,
    training,
    verify,
    view,
)
from segment_slide.flows.show.safe_output import SafeConsole, make_logs_safe, on_own_lines
from segment_slide.flows.show.wording import find_options, in_options, list_options, make_log_handler
from segment_slide.pipeline.errors import IncompleteError, InputError, PipelineError
from segment_slide.pipeline.recorded.addresses import in_words, naming
from segment_slide.unet.errors import UnetError

app = typer.Typer(
    name="segment-slide",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
errors = SafeConsole(stderr=True)

EXIT_NOT_PRINTED, EXIT_REFUSED, EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_NO_READER = 1, 2, 3, 130, 141

# A batch system sends SIGTERM some time before it kills a job. SIGHUP is sent when a terminal or its connection closes.
ENDINGS = (signal.SIGTERM, signal.SIGHUP)
ended_by: list[int] = []  # the signals that came

# Commands whose only result is what they print; "" stands for --help and --version.
PRINTING = ("", "plan", "info")
GO_ON = "Run the same command again to go on."
MEND_FIRST = "What is named would fail again: mend it first. Then the same command goes on."

# Here, because the workers of a command load this file too, before they load Dask. A terminal sends Ctrl-C and SIGHUP
# to them as well; the command ends them. `cluster.preload` has them ignore both in other programs, some seconds later.
keep_files_out()
if multiprocessing.current_process().name.startswith("Dask Worker"):
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    streams.mend_streams()
    make_logs_safe()


def _show_version(is_asked: bool) -> None:
    if is_asked:
        print(f"segment-slide {segment_slide.__version__}")
        raise typer.Exit


for group in (
    *(segment, ingest, info, demo, instances, measure, report, view),
    *(segment_new, training, evaluate, verify, import_model),
):
    app.add_typer(group.commands)
app.add_typer(cluster.commands, name="cluster")


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version.")
    ] = False,
) -> None:
    """Segment microscopy slides and volumes of any size with a U-Net: tile by tile, with the whole image's result."""


def main() -> None:
    """Entry point: run a command, and turn errors that a user can fix into a sentence and an exit code."""
    streams.mend_streams()
    make_logs_safe()
    find_options.set(lambda: list_options(typer.main.get_command(app), sys.argv[1:]))
    logging.basicConfig(level=logging.WARNING, handlers=[make_log_handler()])
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a home folder that it cannot write
    # A read that failed leaves requests for other chunks behind; that they are dropped at the end is no news.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    os.environ.update(SAFE_PATH)  # for Python's own helper of the workers, which this process starts
    for number in ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, _terminate)
    try:
        _check_folder()
        with naming(*in_words(sys.argv[1:])):
            app()
    except (IncompleteError, WorkersLostError) as error:
        _say(f"[bold red]Not complete:[/] {escape(in_options(str(error)))}")
        _say(GO_ON if getattr(error, "may_pass", True) else MEND_FIRST)
        sys.exit(EXIT_INCOMPLETE)
    except (PipelineError, UnetError, ClusterError) as error:
        _say(f"[bold red]Error:[/] {escape(in_options(str(error)))}")
        sys.exit(EXIT_REFUSED)
    except SystemExit as error:
        if error.code in (EXIT_INTERRUPTED, *(128 + number for number in ENDINGS)):
            _say(_interrupted())
        elif not error.code:
            sys.exit(_judge_output())
        raise
    except Exception:
        if not ended_by:
            raise
        # a library that was being loaded when the signal came reports it as an error of its own
        _say(_interrupted())
        sys.exit(128 + ended_by[0])


def _interrupted() -> str:
    kept = "" if _only_prints() else " What is done is kept: run the same command again to go on."
    return f"Interrupted.{kept}"


def _only_prints() -> bool:
    """Whether the command's only result is what it prints."""
    words = sys.argv[1:]
    return "--help" in words or next((word for word in words if not word.startswith("-")), "") in PRINTING


def _judge_output() -> int:
    """Exit code of a command that went well; it counts whether its output was printed if that is all that it does."""
    fault = streams.find_fault(sys.stdout)
    if fault is None:
        return 0
    is_all = _only_prints()
    if streams.is_reader_gone(fault):
        return EXIT_NO_READER if is_all else 0
    _say(f"[yellow]Note:[/] not everything could be printed: {fault.strerror} (standard output).")
    return EXIT_NOT_PRINTED if is_all else 0


def _check_folder() -> None:
    """Refuse to run where the current folder was deleted: no relative path has a meaning, and libraries do not load.

    Raises
    ------
    InputError
        If it was deleted.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise InputError(f"the current folder was deleted ({error.strerror}). Go to another one with cd.") from None


def _terminate(number: int, _: object) -> NoReturn:
    """End as after Ctrl-C, workers first. A shell that ends and its terminal may both send SIGHUP: one is enough."""
    ended_by.append(number)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _say(sentence: str) -> None:
    """Print one line on standard error without wrapping it, so that paths in it can be copied and searched."""
    errors.print(on_own_lines(sentence), highlight=False, soft_wrap=True)
