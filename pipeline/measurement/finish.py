"""After the table is finished: write its summary as a page and a picture, and add objects to the label image."""

from typing import Any

from segment_slide.pipeline.manifest.homes import Made
from segment_slide.pipeline.measurement.page import make_page
from segment_slide.pipeline.measurement.picture import draw_summary
from segment_slide.pipeline.measurement.plan import MeasurePlan
from segment_slide.pipeline.measurement.record import TABLES
from segment_slide.pipeline.measurement.summary import SizeCounts, Summary, summarise, summary_columns
from segment_slide.pipeline.measurement.table import read_part, read_schema
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.files import write_file
from segment_slide.pipeline.storage.place import show_to_all
from segment_slide.pipeline.storage.record import read_ome

MOST_NAMED = 1000  # objects; a viewer loads all properties with the image's metadata


def page_path(plan: MeasurePlan) -> str:
    """File of the summary page. The picture is beside it."""
    return store.join(plan.location, TABLES, f"{plan.table_name}.html")


def write_summary(plan: MeasurePlan, counts: SizeCounts) -> Summary:
    """Write the page and the picture, each whole or not at all.

    Parameters
    ----------
    plan : MeasurePlan
        Plan of a table that is complete.
    counts : SizeCounts
        Counts of the whole table.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    summary = summarise(plan.source.spec, counts)
    title = f"Objects of {plan.name}"
    picture = draw_summary(summary, title)
    schema = read_schema(plan.location, plan.table, 0)
    page = make_page(summary, title, picture, schema, plan.table.rpartition("/")[2])
    write_file(page_path(plan).removesuffix(".html") + ".png", picture)
    write_file(page_path(plan), page.encode(errors="backslashreplace"))
    return summary


def name_objects(plan: MeasurePlan) -> bool:
    """Write class and size of each object into the label image's metadata, where viewers look, if there are few.

    Returns
    -------
    bool
        Whether they are written.

    Raises
    ------
    OutputError
        If the metadata cannot be written.
    """
    if not 0 < (plan.source.n_objects or 0) <= MOST_NAMED:  # metadata of another tool stay as they are
        return False
    if not plan.source.instances.location.startswith(f"{plan.location}/"):  # the table lies in a store of its own
        return False
    group = _instance_group(plan)
    shown = read_ome(plan.location, group)
    label = {**(shown.get("image-label") or {}), "properties": _properties(plan)}
    if shown.get("image-label") != label:
        store.update_attributes(plan.location, group, {"ome": {**shown, "image-label": label}})
    return True


def remove_leftovers(plan: MeasurePlan) -> None:
    """Delete files that a killed run had not finished, beside all metadata that a run writes."""
    store.remove_leftovers(plan.location, TABLES)
    inside = plan.source.instances.location.startswith(f"{plan.location}/")
    for group in ("", *([_instance_group(plan)] if inside else [])):
        store.remove_leftovers(plan.location, group, below=False)


def show_results(plan: MeasurePlan) -> None:
    """Delete copies of metadata in which the tables, or what `name_objects` wrote, is missing."""
    for group in (TABLES, _instance_group(plan)):
        show_to_all(plan.location, group)


def what_it_makes(plan: MeasurePlan) -> Made:
    """Folders and files that a measurement makes: the table, its page and picture, metadata of groups."""
    page = page_path(plan).removeprefix(plan.location).lstrip("/")
    above = ["zarr.json", f"{TABLES}/zarr.json", page, f"{page.removesuffix('.html')}.png"]
    if plan.source.instances.location.startswith(f"{plan.location}/"):
        above.append(f"{_instance_group(plan)}/zarr.json")
    return Made(plan.location, (plan.table,), tuple(above))


def _instance_group(plan: MeasurePlan) -> str:
    return plan.source.instances.location.removeprefix(plan.location).lstrip("/")


def _properties(plan: MeasurePlan) -> list[dict[str, Any]]:
    size = summary_columns(plan.source.spec)[1]
    found = []
    for number in range(plan.n_parts):
        table = read_part(plan.location, plan.table, number, ("id", "class_name", size))
        rows = zip(*(table[name].to_pylist() for name in ("id", "class_name", size)), strict=True)
        found += [{"label-value": i, "class": name, size: n} for i, name, n in rows]
    return found
