"""Class map to objects, stage by stage: fill holes, find, join, write, regrow, pyramid, in this visible order.

This file does not start workers: it takes a Dask client, or None to work in this process, block by block.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from segment_slide.pipeline.blocks.progress import Stages, timed
from segment_slide.pipeline.blocks.tasks import keeping_what_is_done
from segment_slide.pipeline.errors import IncompleteError, InputError, OutputError
from segment_slide.pipeline.inputs.watch import explain_changed, refuse_changed
from segment_slide.pipeline.manifest.homes import Made
from segment_slide.pipeline.manifest.sealing import sealing
from segment_slide.pipeline.objects import output, run
from segment_slide.pipeline.objects.block import ObjectsJob
from segment_slide.pipeline.objects.prepare import CLASSES, PreparedInstances
from segment_slide.pipeline.statistics.object_sizes import SmallObjects
from segment_slide.pipeline.storage import names, store
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.label_records import InstancesRecord, read_instances_record
from segment_slide.pipeline.storage.labels import LabelSource
from segment_slide.pipeline.storage.place import show_to_all
from segment_slide.pipeline.storage.pyramid import build_pyramid

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class InstancesReport:
    """Result of a run.

    Attributes
    ----------
    location, name : str
        Store, and name of the instance image in it.
    n_objects, n_larger_than_halo : int
        Number of objects, and how many of them no block saw as a whole when they were split.
    n_blocks, n_done_before : int
        Number of blocks of the image, and how many of them had ids before this run.
    n_pixels : int
        Number of pixels of the image.
    stage_seconds : dict
        Wall time per stage.
    small : SmallObjects or None
        How many objects are small; None if an earlier run had numbered them.
    from_model : tuple of str
        Options that the model recommended and the user did not choose.
    """

    location: str
    name: str
    n_objects: int
    n_larger_than_halo: int
    n_blocks: int
    n_done_before: int
    n_pixels: int
    stage_seconds: dict[str, float]
    small: SmallObjects | None = None
    from_model: tuple[str, ...] = ()


def run_instances(prepared: PreparedInstances, client: "Client | None", progress: Stages) -> InstancesReport:
    """Run all stages. The caller must hold the lock on the output (`storage.place.exclusive`).

    Parameters
    ----------
    prepared : PreparedInstances
        What to do.
    client : Client, optional
        Client of a Dask cluster; None works in this process, block by block.
    progress : Stages
        Receives the progress.

    Raises
    ------
    PipelineError
        If the input is bad. Raised before anything is created.
    IncompleteError
        If blocks are left undone. Finished blocks are kept, and the same call resumes.
    """
    location, name = prepared.location, prepared.name
    if (read_instances_record(location, name) is not None) != prepared.begun:
        raise OutputError(f"output={location} was begun by another run in the meantime; run the same command again.")
    made = Made(location, (names.instance_group(name),), ("zarr.json", "labels/zarr.json"))
    with sealing(made, client, progress):
        return _run_stages(prepared, client, progress)


def _run_stages(prepared: PreparedInstances, client: "Client | None", progress: Stages) -> InstancesReport:
    """Run all stages while the output's manifest is open."""
    location, name, plan = prepared.location, prepared.name, prepared.plan
    clock: dict[str, float] = {}
    small: SmallObjects | None = None
    taken = output.what_a_run_would_create(location, name)
    if not prepared.begun:
        output.begin(location, name, plan, prepared.from_model, in_place=prepared.in_place)
    else:
        output.renew_record(location, name, plan)
        refuse_changed(plan.image, prepared.watched.list_folder(CLASSES), _begin_anew(prepared))
    done = store.stored_shards(location, prepared.ids_path)
    with _taking_back_if_refused(prepared, taken), keeping_what_is_done():
        if len(done) < plan.grid.n_blocks or _record(prepared).n_objects is None:
            output.create_work(location, name, plan)
            prepared = _keep_list(prepared)
            job = prepared.objects_job(_fill(prepared, client, progress, clock))
            numbering = _find(job, client, progress, clock)
            output.create_arrays(location, name, plan, numbering.count)
            _write(prepared, job, numbering, client, progress, clock)
            _check_input(prepared)
            output.finish(location, name, numbering.count, numbering.n_larger_than_halo)
            small = numbering.small
        output.remove_work(location, name)
        with timed(clock, "pyramid"):
            _pyramid(prepared, client, progress)
        show_to_all(location, names.instance_group(name))
    record = _record(prepared)
    return InstancesReport(
        location=location,
        name=names.instances_name(name),
        n_objects=record.n_objects or 0,
        n_larger_than_halo=record.n_larger_than_halo or 0,
        n_blocks=plan.grid.n_blocks,
        n_done_before=len(done),
        n_pixels=math.prod(plan.grid.shape),
        stage_seconds=clock,
        small=small,
        from_model=prepared.from_model,
    )


def _keep_list(prepared: PreparedInstances) -> PreparedInstances:
    """The same with a list of what is read of the classes."""
    source = prepared.plan.source
    image = replace(source.image, image=prepared.watched.images[CLASSES])
    return replace(prepared, plan=replace(prepared.plan, source=replace(source, image=image)))


def _check_input(prepared: PreparedInstances) -> None:
    """Refuse to finish ids of classes that changed meanwhile; ids of objects of both are of no use, and are deleted.

    Raises
    ------
    IncompleteError
        Naming the files.
    """
    recorded = {CLASSES: _record(prepared).input.fingerprint}
    if changed := replace(prepared.watched, fingerprints=recorded).find_changed():
        store.remove(prepared.location, names.instance_group(prepared.name))
        remedy = f"What was made of {prepared.plan.image.location} is deleted; run the same command again."
        raise IncompleteError(explain_changed(changed, remedy))


def _begin_anew(prepared: PreparedInstances) -> str:
    group = store.join(prepared.location, names.instance_group(prepared.name))
    return f"What is begun in {group} is of other classes: delete it, and run the same command again."


def _fill(
    prepared: PreparedInstances, client: "Client | None", progress: Stages, clock: dict[str, float]
) -> LabelSource:
    """The classes with filled holes, in the work folder; or the classes themselves, if no holes are to be filled."""
    plan = prepared.plan
    if not plan.parameters.fill_holes_px:
        return plan.source
    job = prepared.holes_job()
    done = store.stored_shards(prepared.location, job.array_path)
    if len(done) < plan.grid.n_blocks:
        total = 2 * plan.grid.n_blocks + len(job.join.rows())
        n_done = len(done) + len(run.found_blocks(job.join))
        with timed(clock, "holes"), progress.stage("holes", total=total, done=n_done, unit="steps") as advance:
            run.fill_all_holes(job, done, client, advance)
    image = describe_image(store.join(prepared.location, job.array_path), axes=plan.axes)
    return LabelSource(replace(plan.source.image, image=image))


def _find(job: ObjectsJob, client: "Client | None", progress: Stages, clock: dict[str, float]) -> run.Numbering:
    """Find the objects of each block, unite them and number them."""
    n_blocks, n_rows = job.join.grid.n_blocks, len(job.join.rows())
    n_done = len(run.found_blocks(job.join))
    with timed(clock, "find"), progress.stage("find", total=n_blocks, done=n_done) as advance:
        run.find_all_objects(job, client, advance)
    with timed(clock, "join"), progress.stage("join", total=2 * n_rows, unit="rows") as advance:
        nodes = run.join_blocks(job.join, client, advance)
        return run.number_objects(job, nodes, client, advance)


def _write(
    prepared: PreparedInstances,
    job: ObjectsJob,
    numbering: run.Numbering,
    client: "Client | None",
    progress: Stages,
    clock: dict[str, float],
) -> None:
    """Write ids into their shards; if ridges are given back, into the work folder first."""
    n_blocks = prepared.plan.grid.n_blocks
    done = store.stored_shards(prepared.location, job.array_path)
    with timed(clock, "write"), progress.stage("write", total=n_blocks, done=len(done)) as advance:
        run.write_all_objects(job, numbering, done, client, advance)
    if prepared.plan.parameters.regrow:
        regrow = prepared.regrow_job()
        done = store.stored_shards(prepared.location, regrow.target_path)
        with timed(clock, "regrow"), progress.stage("regrow", total=n_blocks, done=len(done)) as advance:
            run.regrow_all_objects(regrow, done, client, advance)


def _pyramid(prepared: PreparedInstances, client: "Client | None", progress: Stages) -> None:
    """Write the coarser levels of the ids."""
    plan, location = prepared.plan, prepared.location
    group = names.instance_group(prepared.name)
    arrays = plan.arrays(output.ids_dtype(_record(prepared).n_objects or 0))
    total = sum(spec.n_shards for spec in arrays[1:])
    done = sum(len(store.stored_shards(location, f"{group}/{spec.path}")) for spec in arrays[1:])
    with progress.stage("pyramid", total=total, done=done, unit="files") as advance:
        build_pyramid(location, group, arrays, plan.spatial_axes, "nearest", client=client, on_shard=lambda: advance(0))


def _record(prepared: PreparedInstances) -> InstancesRecord:
    """The record as stored now. It is empty if the store was deleted meanwhile; the next write reports that."""
    return read_instances_record(prepared.location, prepared.name) or InstancesRecord()


@contextlib.contextmanager
def _taking_back_if_refused(prepared: PreparedInstances, taken: str) -> Iterator[None]:
    """Delete the instances that this run began, if its input turns out to hold no classes.

    Parameters
    ----------
    prepared : PreparedInstances
        The run.
    taken : str
        Path of what the run began.

    Raises
    ------
    InputError
        The original error, raised again.
    """
    try:
        yield
    except IncompleteError as error:
        if prepared.begun or not isinstance(error.__cause__, InputError):
            raise
        store.remove(prepared.location, taken)
        raise error.__cause__ from None
