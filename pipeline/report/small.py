"""What a report says of small objects: how many there are, and the command that drops them."""

from dataclasses import replace

from segment_slide.pipeline.report.commands import instances_command
from segment_slide.pipeline.report.facts import Facts
from segment_slide.pipeline.report.html import Markup, block, join, tag
from segment_slide.pipeline.statistics.object_sizes import SmallObjects
from segment_slide.pipeline.storage.label_records import InstanceParameters


def small_objects(facts: Facts, counted: SmallObjects | None) -> Markup:
    """Show the share of small objects and the command that drops them; nothing if there are none.

    Parameters
    ----------
    facts : Facts
        The result.
    counted : SmallObjects or None
        From the table of objects; None if there is no table.
    """
    if counted is None or not counted.n_small:
        return join()
    chosen = facts.instance_record.parameters if facts.instance_record else InstanceParameters()
    text = f"{counted}, which is often noise. Into another output, this command leaves them out:"
    without = instances_command(facts, replace(chosen, min_size_px=counted.below_px), output="OTHER.ome.zarr")
    return join(tag("p", text, class_="note"), block(without))
