"""What a person sees while a run works: a bar per stage with blocks done, pixels per second and time left."""

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from segment_slide.pipeline.blocks.progress import Advance


class _PixelRate(ProgressColumn):
    """Pixels per second since the stage began; empty for a stage that counts no pixels."""

    def render(self, task: Task) -> Text:
        if not task.fields["pixels"]:
            return Text("")
        seconds = max(time.monotonic() - task.fields["began"], 1e-9)
        return Text(format_rate(task.fields["pixels"] / seconds), style="green")


class RichStages:
    """Show bars in a terminal, or one line per stage if the output goes to a file."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0, unit: str = "blocks") -> Iterator[Advance]:
        """See `Stages`."""
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[note]}", style="cyan"),
            _PixelRate(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(name, total=total, completed=done, pixels=0, note="", began=time.monotonic())

            def advance(n_pixels: int, note: str = "") -> None:
                pixels = progress.tasks[0].fields["pixels"] + n_pixels
                progress.update(task, advance=1, pixels=pixels, note=note)

            yield advance


def format_rate(pixels_per_s: float) -> str:
    """Format a number of pixels per second for people.

    >>> format_rate(2_340_000), format_rate(0)
    ('2.34 Mpx/s', '0.00 Mpx/s')
    """
    return f"{pixels_per_s / 1e6:.2f} Mpx/s"


def format_seconds(seconds: float) -> str:
    """Format a duration for people.

    >>> format_seconds(8.25), format_seconds(125), format_seconds(7300)
    ('8.2 s', '2 min 5 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
