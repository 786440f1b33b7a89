"""What is printed of a cluster."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segment_slide.flows.progress import format_bytes

if TYPE_CHECKING:
    from segment_slide.flows.check_cluster import ClusterReport


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
