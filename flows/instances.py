"""Class map to objects: check, fill holes, find, join, rank, write, pyramid, in this visible order."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cluster.local import LocalSpec, local_client, plan_local
from flows.progress import QuietStages, Stages
from pipeline import instance_output, instances, output, store
from pipeline.errors import IncompleteError, InputError, PipelineError
from pipeline.hole_blocks import HolesJob, complement
from pipeline.image import describe_image
from pipeline.instance_options import InstanceOptions
from pipeline.instance_plan import InstancePlan, plan_instances
from pipeline.label_source import LabelSource
from pipeline.merge import JoinJob
from pipeline.object_blocks import ObjectsJob
from pipeline.pyramid import build_pyramid
from pipeline.store import ArraySpec

if TYPE_CHECKING:
    from distributed import Client

_FILLED = "filled"


@dataclass(frozen=True)
class InstancesRequest:
    """What to find objects in, and where ids go.

    Parameters
    ----------
    input : str
        A segmentation (its label image `name`), or an image of classes.
    name : str
        Of the class map; the instances' is ``<name>-instances``.
    output : str
        Another store for the ids; by default the segmentation itself.
    options : InstanceOptions
        What becomes an object.
    level, axes
        Of the input: see `pipeline.image.describe_image`.
    workers : int, optional
        Worker processes on this machine.
    in_place : bool
        Write into an input that this package did not make.
    """

    input: str
    name: str = "segmentation"
    output: str = ""
    options: InstanceOptions = InstanceOptions()
    level: int = 0
    axes: str | None = None
    workers: int | None = None
    in_place: bool = False


@dataclass(frozen=True)
class InstancesReport:
    """What a run did.

    Attributes
    ----------
    location, name : str
        Store, and the instance image in it.
    n_objects, n_larger_than_halo : int
        Objects, and those that no block saw as a whole when they were split.
    n_blocks, n_done_before : int
        Blocks of the image, and those whose ids were there.
    n_pixels : int
        Pixels of the image.
    stage_seconds : dict
        Wall time per stage.
    """

    location: str
    name: str
    n_objects: int
    n_larger_than_halo: int
    n_blocks: int
    n_done_before: int
    n_pixels: int
    stage_seconds: dict[str, float]


@dataclass(frozen=True)
class PreparedInstances:
    """A request checked against its input and output."""

    request: InstancesRequest
    location: str
    plan: InstancePlan
    cluster: LocalSpec
    in_place: bool
    begun: bool

    @property
    def name(self) -> str:
        """Of the class map."""
        return self.request.name

    def job(self, source: LabelSource) -> ObjectsJob:
        """What tasks need to label classes from a source."""
        plan, parameters = self.plan, self.plan.parameters
        work = instance_output.work_folder(self.location, self.name, "objects")
        return ObjectsJob(
            source=source,
            join=JoinJob(plan.grid, work, parameters["connectivity"]),
            min_size_px=parameters["min_size_px"],
            split_depth_px=parameters["split"],
            spacing=plan.spacing,
            regrow=parameters["regrow"],
            location=self.location,
            group=instance_output.instance_group(self.name),
        )


def label_objects(request: InstancesRequest, progress: Stages | None = None) -> InstancesReport:
    """Find the objects of a class map, or go on with what was interrupted.

    Raises
    ------
    PipelineError, ClusterError
        Bad input, before anything is created.
    IncompleteError
        Blocks were left undone; what is done is kept and the same command goes on.
    """
    prepared = prepare(request)
    instances_name = instance_output.instances_name(request.name)
    with output.exclusive(prepared.location, instances_name), local_client(prepared.cluster) as client:
        return run_instances(prepared, client, progress or QuietStages())


def prepare(request: InstancesRequest) -> PreparedInstances:
    """Check everything that metadata tell; nothing is read or created."""
    image, in_labels = instance_output.find_labels(request.input, request.name, level=request.level, axes=request.axes)
    location = _choose_location(request, in_labels)
    in_place = location == store.resolve_location(request.input)
    plan = plan_instances(image, request.options)
    cluster = plan_local(request.workers)
    plan.check_memory(cluster.usable_bytes, cluster.tasks_per_worker)
    begun = instance_output.check_place(location, request.name, image, plan.record(), in_place=in_place)
    return PreparedInstances(request, location, plan, cluster, in_place, begun)


def _choose_location(request: InstancesRequest, in_labels: bool) -> str:
    if request.output:
        return store.resolve_location(request.output)
    location = store.resolve_location(request.input)
    if in_labels and (request.in_place or instance_output.is_ours(location, request.name)):
        return location
    raise InputError(
        f"{location} was not made by segment-slide, and inputs are read-only: give --output OUT.ome.zarr"
        f"{', or --in-place to write into its labels/' if in_labels else ''}."
    )


def run_instances(prepared: PreparedInstances, client: "Client", progress: Stages) -> InstancesReport:
    """All stages, on workers that are there; the output must be held."""
    location, name, plan = prepared.location, prepared.name, prepared.plan
    clock: dict[str, float] = {}
    if not prepared.begun:
        instance_output.begin(location, name, plan.record())
    array = f"{instance_output.instance_group(name)}/0"
    done = store.stored_shards(location, array)
    if len(done) < plan.grid.n_blocks or instance_output.COUNT not in _record(prepared):
        with _timed(clock, "fill"):
            source = _fill(prepared, client, progress)
        job = prepared.job(source)
        with _timed(clock, "find"), _stage(progress, "find", plan, len(job.join.work.stored("faces"))) as advance:
            instances.find_all_objects(job, client, advance)
        numbering = _number(job, client, progress, clock)
        instance_output.create_arrays(location, name, plan, numbering.count, in_place=prepared.in_place)
        with _timed(clock, "write"), _stage(progress, "write", plan, len(done)) as advance:
            instances.write_all_objects(job, numbering, done, client, advance)
        summary = {instance_output.COUNT: numbering.count, "n_larger_than_halo": numbering.n_larger_than_halo}
        instance_output.finish(location, name, summary)
    with _timed(clock, "pyramid"):
        _pyramid(prepared, client, progress)
    record = _record(prepared)
    return InstancesReport(
        location=location,
        name=instance_output.instances_name(name),
        n_objects=record[instance_output.COUNT],
        n_larger_than_halo=record["n_larger_than_halo"],
        n_blocks=plan.grid.n_blocks,
        n_done_before=len(done),
        n_pixels=_count_pixels(plan),
        stage_seconds=clock,
    )


def _fill(prepared: PreparedInstances, client: "Client", progress: Stages) -> LabelSource:
    """Classes with their holes filled, in the work folder; or the classes themselves, if nothing is to be filled."""
    plan, location = prepared.plan, prepared.location
    if not plan.parameters["fill_holes_px"]:
        return plan.source
    folder = instance_output.work_path(prepared.name)
    array = f"{folder}/{_FILLED}"
    if store.read_attributes(location, folder) is None:
        spec = ArraySpec(_FILLED, plan.grid.shape, plan.grid.block, plan.chunk, "uint8", plan.axes)
        store.create_group(location, folder, [spec], {})
    work = instance_output.work_folder(location, prepared.name, "holes")
    connectivity = complement(plan.parameters["connectivity"], plan.grid.n_spatial)
    job = HolesJob(
        plan.source, JoinJob(plan.grid, work, connectivity), plan.parameters["fill_holes_px"], location, array
    )
    done = store.stored_shards(location, array)
    total = 2 * plan.grid.n_blocks + len(job.join.rows())
    if len(done) < plan.grid.n_blocks:
        with progress.stage("holes", total=total, done=len(done) + len(work.stored("faces"))) as advance:
            instances.fill_all_holes(job, done, client, advance)
    image = describe_image(store.join(location, array), axes=plan.axes)
    return LabelSource(replace(plan.source.image, image=image))


def _number(job: ObjectsJob, client: "Client", progress: Stages, clock: dict[str, float]) -> instances.Numbering:
    n_rows = len(job.join.rows())
    with _timed(clock, "join"), progress.stage("join", total=2 * n_rows, unit="rows") as advance:
        nodes = instances.join_blocks(job.join, client, advance)
        return instances.number_objects(job, nodes, client, advance)


def _pyramid(prepared: PreparedInstances, client: "Client", progress: Stages) -> None:
    plan, location = prepared.plan, prepared.location
    group = instance_output.instance_group(prepared.name)
    arrays = plan.arrays(instance_output.ids_dtype(_record(prepared)[instance_output.COUNT]))
    total = sum(spec.n_shards for spec in arrays[1:])
    done = sum(len(store.stored_shards(location, f"{group}/{spec.path}")) for spec in arrays[1:])
    with progress.stage("pyramid", total=total, done=done, unit="files") as advance:
        try:
            build_pyramid(
                location, group, arrays, plan.spatial_axes, "nearest", client=client, on_shard=lambda: advance(0)
            )
        except PipelineError as error:
            raise IncompleteError(f"pyramid: {error}. What is done is kept.") from error


def _record(prepared: PreparedInstances) -> dict[str, int]:
    return instance_output.read_instance_record(prepared.location, prepared.name)


def _count_pixels(plan: InstancePlan) -> int:
    total = 1
    for size in plan.grid.shape:
        total *= size
    return total


def _stage(
    progress: Stages, name: str, plan: InstancePlan, done: int
) -> contextlib.AbstractContextManager[instances.OnStep]:
    return progress.stage(name, total=plan.grid.n_blocks, done=done)


@contextlib.contextmanager
def _timed(clock: dict[str, float], name: str) -> Iterator[None]:
    """Add a stage's wall time to a clock."""
    began = time.perf_counter()
    yield
    clock[name] = time.perf_counter() - began
