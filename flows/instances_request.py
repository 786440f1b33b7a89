"""A request for objects, checked against its input and output before any work: nothing is read, nothing created."""

from dataclasses import dataclass

from segment_slide.cluster.spec import ClusterSpec
from segment_slide.flows.workers import plan_cluster
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.objects import output as instance_output
from segment_slide.pipeline.objects.block import ObjectsJob, RegrowJob
from segment_slide.pipeline.objects.holes import HolesJob, complement
from segment_slide.pipeline.objects.options import InstanceOptions
from segment_slide.pipeline.objects.plan import InstancePlan, plan_instances
from segment_slide.pipeline.objects.unite import JoinJob
from segment_slide.pipeline.storage import names, store
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.labels import LabelSource
from segment_slide.pipeline.storage.place import check_in_place


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
        Of the input: see `pipeline.storage.image.describe_image`.
    workers : int, optional
        Worker processes on this machine, or jobs.
    cluster : str
        Where to work: see `flows.workers.plan_cluster`.
    in_place : bool
        Write into an input that this package did not make.
    block_time_limit_s : int, optional
        After which a worker that is busy with one task is ended.
    """

    input: str
    name: str = "segmentation"
    output: str = ""
    options: InstanceOptions = InstanceOptions()
    level: int = 0
    axes: str | None = None
    workers: int | None = None
    cluster: str = "local"
    in_place: bool = False
    block_time_limit_s: int | None = None


@dataclass(frozen=True)
class PreparedInstances:
    """A request checked against its input and output."""

    request: InstancesRequest
    location: str
    plan: InstancePlan
    cluster: ClusterSpec
    in_place: bool
    begun: bool

    @property
    def name(self) -> str:
        """Of the class map."""
        return self.request.name

    @property
    def ids_path(self) -> str:
        """Array of the ids."""
        return f"{names.instance_group(self.name)}/0"

    @property
    def _ungrown_path(self) -> str:
        return f"{instance_output.work_path(self.name)}/{instance_output.UNGROWN}"

    def holes_job(self) -> HolesJob:
        """What tasks need to fill holes."""
        plan, location = self.plan, self.location
        work = instance_output.work_folder(location, self.name, "holes")
        connectivity = complement(plan.parameters["connectivity"], plan.grid.n_spatial)
        array = f"{instance_output.work_path(self.name)}/{instance_output.FILLED}"
        join = JoinJob(plan.grid, work, connectivity)
        return HolesJob(plan.source, join, plan.parameters["fill_holes_px"], location, array)

    def objects_job(self, source: LabelSource) -> ObjectsJob:
        """What tasks need to find objects in classes from a source, and to write them."""
        plan, parameters = self.plan, self.plan.parameters
        work = instance_output.work_folder(self.location, self.name, "objects")
        return ObjectsJob(
            source=source,
            join=JoinJob(plan.grid, work, parameters["connectivity"]),
            min_size_px=parameters["min_size_px"],
            split_depth_px=parameters["split"],
            spacing=plan.spacing,
            location=self.location,
            array_path=self._ungrown_path if parameters["regrow"] else self.ids_path,
        )

    def regrow_job(self) -> RegrowJob:
        """What tasks need to give ridges back."""
        return RegrowJob(self.plan.grid, self.location, self._ungrown_path, self.ids_path)


def prepare(request: InstancesRequest) -> PreparedInstances:
    """Check everything that metadata tell; nothing is read or created."""
    image, in_labels = instance_output.find_labels(request.input, request.name, level=request.level, axes=request.axes)
    source = store.resolve_location(request.input)
    location = store.resolve_location(request.output) if request.output else source
    in_place = location == source and _may_write_into(request, image, source, in_labels=in_labels)
    if not request.output and not in_place:
        raise InputError(
            f"{location} was not made by segment-slide, and inputs are read-only: give --output OUT.ome.zarr"
            f"{', or --in-place to write into its labels/' if in_labels else ''}."
        )
    plan = plan_instances(image, request.options)
    cluster = plan_cluster(
        request.cluster, request.workers, block_time_limit_s=request.block_time_limit_s, short_tasks=True
    )
    plan.check_memory(cluster.usable_bytes, cluster.tasks_per_worker)
    begun = instance_output.check_place(location, request.name, source, plan.record(), in_place=in_place)
    return PreparedInstances(request, location, plan, cluster, in_place, begun)


def _may_write_into(request: InstancesRequest, image: StoredImage, location: str, *, in_labels: bool) -> bool:
    """Whether ids may go into the input itself: into a segmentation of ours, or where that is asked for."""
    if in_labels and instance_output.is_ours(location, request.name):
        return True
    if in_labels and request.in_place:
        check_in_place(image)
        return True
    return False
