"""Check a planned instance segmentation against its input and output before any work. Reads and creates nothing."""

from dataclasses import dataclass

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.inputs.watch import READ, InputWatch, watch
from segment_slide.pipeline.objects import output
from segment_slide.pipeline.objects.block import ObjectsJob, RegrowJob
from segment_slide.pipeline.objects.holes import HolesJob, complement
from segment_slide.pipeline.objects.plan import InstancePlan
from segment_slide.pipeline.objects.unite import JoinJob
from segment_slide.pipeline.storage import names, store
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.labels import LabelSource
from segment_slide.pipeline.storage.place import check_in_place

CLASSES = "classes"  # name of the list of what is read


@dataclass(frozen=True)
class PreparedInstances:
    """A planned instance segmentation, checked against its input and output.

    Attributes
    ----------
    location, name : str
        Output store, and the class map whose objects are numbered.
    plan : InstancePlan
        What is to be done.
    in_place : bool
        Whether ids are written into the store that holds the classes.
    begun : bool
        Whether the output exists already.
    watched : InputWatch
        The files of the classes as they were before anything of them was read.
    from_model : tuple of str
        Options that the model recommended (`pipeline.objects.recommended`).
    """

    location: str
    name: str
    plan: InstancePlan
    in_place: bool
    begun: bool
    watched: InputWatch
    from_model: tuple[str, ...] = ()

    @property
    def ids_path(self) -> str:
        """Array of the ids."""
        return f"{names.instance_group(self.name)}/0"

    @property
    def _ungrown_path(self) -> str:
        return f"{output.work_path(self.name)}/{output.UNGROWN}"

    def holes_job(self) -> HolesJob:
        """What tasks need to fill holes."""
        plan, location = self.plan, self.location
        work = output.work_folder(location, self.name, "holes")
        connectivity = complement(plan.parameters.connectivity, plan.grid.n_spatial)
        array = f"{output.work_path(self.name)}/{output.FILLED}"
        join = JoinJob(plan.grid, work, connectivity)
        return HolesJob(plan.source, join, plan.parameters.fill_holes_px, location, array)

    def objects_job(self, source: LabelSource) -> ObjectsJob:
        """What tasks need to find objects in classes from a source, and to write them."""
        plan, parameters = self.plan, self.plan.parameters
        work = output.work_folder(self.location, self.name, "objects")
        return ObjectsJob(
            source=source,
            join=JoinJob(plan.grid, work, parameters.connectivity),
            min_size_px=parameters.min_size_px,
            split_depth_px=parameters.split,
            spacing=plan.spacing,
            location=self.location,
            array_path=self._ungrown_path if parameters.regrow else self.ids_path,
        )

    def regrow_job(self) -> RegrowJob:
        """What tasks need to give ridges back."""
        return RegrowJob(self.plan.grid, self.location, self._ungrown_path, self.ids_path)


@dataclass(frozen=True)
class ClassMap:
    """The classes whose objects are numbered, and where the ids are written.

    Attributes
    ----------
    image : StoredImage
        The classes.
    location, name : str
        Store that ids are written into, and the class map's name.
    source : str
        Store that the user named as input.
    in_place : bool
        Whether both are the same store.
    """

    image: StoredImage
    location: str
    name: str
    source: str
    in_place: bool


def find_class_map(
    input_location: str,
    name: str,
    output_location: str = "",
    *,
    level: int = 0,
    axes: str | None = None,
    in_place: bool = False,
) -> ClassMap:
    """Find the classes that the user means, and where their ids may be written.

    Parameters
    ----------
    input_location : str
        A segmentation (its label image `name`), or an image of classes.
    name : str
        Name of the class map. The instances are called ``<name>-instances``.
    output_location : str
        Another store for the ids; by default the segmentation itself.
    level, axes
        Level and axes of the input: see `pipeline.storage.image.describe_image`.
    in_place : bool
        Allow writing into an input that this package did not make.

    Raises
    ------
    InputError
        If there are no such classes, or ids may not be written into their store.
    """
    image, in_labels = output.find_labels(input_location, name, level=level, axes=axes)
    source = store.resolve_location(input_location)
    location = store.resolve_location(output_location) if output_location else source
    same = location == source and _may_write_into(image, source, name, in_labels=in_labels, in_place=in_place)
    if not output_location and not same:
        raise InputError(
            f"{location} was not made by segment-slide, and inputs are read-only: give `output='OUT.ome.zarr'`"
            f"{', or `in_place` to write into its labels/' if in_labels else ''}."
        )
    return ClassMap(image, location, name, source, same)


def prepare_instances(classes: ClassMap, plan: InstancePlan, from_model: tuple[str, ...] = ()) -> PreparedInstances:
    """Compare the plan with an output that was begun in the same place. Nothing is created.

    Raises
    ------
    OutputMismatchError
        If other instances were begun there. The message names what differs.
    """
    folder = store.join(classes.location, output.work_path(classes.name), READ)
    watched = watch({CLASSES: classes.image}, folder, {})
    begun = output.check_place(classes.location, classes.name, classes.source, plan, in_place=classes.in_place)
    return PreparedInstances(classes.location, classes.name, plan, classes.in_place, begun, watched, from_model)


def _may_write_into(image: StoredImage, location: str, name: str, *, in_labels: bool, in_place: bool) -> bool:
    """Whether ids may be written into the input itself: if it is a segmentation of ours, or if the user allows it."""
    if in_labels and output.is_ours(location, name):
        return True
    if in_labels and in_place:
        check_in_place(image)
        return True
    return False
