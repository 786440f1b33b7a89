"""Parts shared by all that the commands print: tables, sizes, how to view a result."""

import shlex
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segment_slide.pipeline.blocks.memory import format_bytes

if TYPE_CHECKING:
    from segment_slide.flows.check_cluster import ClusterReport
    from segment_slide.pipeline.storage.complete import Completeness


def make_table(title: str, rows: dict[str, str]) -> Table:
    """Make a table of names and values."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # whole paths and hashes, without ellipsis
    for name, value in rows.items():
        table.add_row(f"[dim]{name}[/]", escape(value))
    return table


def _sizes(sizes: tuple[int, ...]) -> str:
    return " x ".join(f"{size:,}" for size in sizes)


def show_how_to_look(console: Console, location: str) -> None:
    """Print the command that shows an output, ready to copy."""
    console.print(f"Look at it: {escape(view_command(location))}", highlight=False, soft_wrap=True)


def view_command(location: str) -> str:
    """Return the command that opens an output in the browser.

    >>> view_command("/data/my slide.ome.zarr")
    "segment-slide view '/data/my slide.ome.zarr'"
    """
    return shlex.join(["segment-slide", "view", location])


def _sizes_um(sizes: tuple[float, ...]) -> str:
    return " x ".join(f"{size:g}" for size in sizes) + " um" if sizes else "unknown"


def show_cluster(console: Console, report: "ClusterReport") -> None:
    """Print every worker."""
    table = Table(title=f"Workers ({report.spec.kind})", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("worker", "host", "job", "threads", "memory", "device"):
        table.add_column(column, overflow="fold")
    for worker in report.workers:
        memory = format_bytes(worker["memory_bytes"])
        row = (worker["name"], worker["host"], worker["job"], worker["threads"], memory, worker["device"])
        table.add_row(*(escape(str(value)) for value in row))
    console.print(table)
    console.print(f"[bold green]Done:[/] {len(report.workers)} worker(s) are ready.", highlight=False)


def describe_state(state: "Completeness") -> dict[str, str]:
    """How much is there, and what completes it; nothing of what another program made."""
    if not state.is_complete:
        return {"not complete": f"{state.text}; {state.remedy}"}
    return {"complete": f"all {state.n_files:,} {state.unit} are there"} if state.n_files else {}
