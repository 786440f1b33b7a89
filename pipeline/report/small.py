"""What a report says of small objects: how many there are, and the command that drops them."""

from dataclasses import replace

from segment_slide.pipeline.report.commands import instances_command
from segment_slide.pipeline.report.facts import Facts
from segment_slide.pipeline.report.html import Markup, block, join, tag
from segment_slide.pipeline.statistics.object_sizes import SmallObjects
from segment_slide.pipeline.storage.label_records import InstanceParameters


def small_objects(facts: Facts, counted: SmallObjects | None) -> Markup:
    """Show the share of small objects and the command that drops them; nothing if there are none, or nobody counted.

    Parameters
    ----------
    facts : Facts
        The result.
    counted : SmallObjects, optional
        From the table of objects; by default from the record of the instances.
    """
    record = facts.instance_record
    if counted is None and record is not None and record.n_small is not None and record.small_px is not None:
        counted = SmallObjects(record.n_small, record.n_objects or 0, record.small_px)
    if counted is None or not counted.n_small:
        return join()
    chosen = record.parameters if record else InstanceParameters()
    text = f"{counted}, which is often noise. Into another output, this command leaves them out:"
    without = instances_command(facts, replace(chosen, min_size_px=counted.below_px), output="OTHER.ome.zarr")
    return join(tag("p", text, class_="note"), block(without))
