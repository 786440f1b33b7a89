"""One function for everything that our commands write: whether it is complete, and which command completes it."""

from segment_slide.pipeline.blocks.grid import ceil_divide
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.measurement.record import TABLES, TableRecord, read_table_record
from segment_slide.pipeline.measurement.table import stored_parts
from segment_slide.pipeline.nights.notes import BEGUN_SUFFIX, read_done
from segment_slide.pipeline.nights.outputs import IMAGES
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.complete import Completeness, judge_image
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.record import ATTRIBUTE, read_mark
from segment_slide.pipeline.training import sample_set, training_set
from segment_slide.pipeline.zarr_stores.archive import is_archive_name

_TABLE, _OUTPUT = ".parquet", ".zarr"


def judge(location: str, *, axes: str | None = None) -> Completeness:
    """Whether what lies at a path is complete.

    Parameters
    ----------
    location : str
        An image, a label image, the folder of a table, a training set, training samples, or a night's folder of
        outputs; path or URL.
    axes : str, optional
        Axes of a bare array.

    Returns
    -------
    Completeness
        Complete, if another program made it: it may leave out files of pure background.

    Raises
    ------
    InputError
        If none of these is there.
    """
    location = store.resolve_location(location)
    if is_table(location):
        return _judge_table(location)
    if store.read_attributes(location) is not None:
        kind = read_mark(location).kind
        if kind == training_set.KIND:
            return _judge_training_set(location)
        if kind == sample_set.KIND:
            return _judge_samples(location)
    elif outputs := find_outputs(location):
        return _judge_night(location, outputs)
    return judge_image(describe_image(location, axes=axes))


def is_table(location: str) -> bool:
    """Whether a path names the folder of a table."""
    return location.endswith(_TABLE)


def _judge_training_set(location: str) -> Completeness:
    if not _is_described(location, "images"):
        return Completeness(location, lacks="its labels are not counted yet", remedy=training_set.REMEDY)
    return training_set.judge_training_set(training_set.read_training_set(location))


def _judge_samples(location: str) -> Completeness:
    if not _is_described(location, "n_training"):
        return Completeness(location, lacks="its samples are not described yet", remedy=sample_set.REMEDY)
    return sample_set.judge_sample_set(sample_set.read_sample_set(location))


def _is_described(location: str, name: str) -> bool:
    """Whether the record of a set is there: a run that was interrupted early has left its mark alone."""
    return name in ((store.read_attributes(location) or {}).get(ATTRIBUTE) or {})


def _judge_table(location: str) -> Completeness:
    """A table is complete if all its parts are there."""
    root, between, name = location.removesuffix(_TABLE).rpartition(f"/{TABLES}/")
    record = read_table_record(root, name) if between else None
    if record is None:
        if store.list_names(location):
            return Completeness(location)
        raise InputError(f"{location}: no table is there; make one: segment-slide measure.")
    remedy = f"run the same `segment-slide measure` of {root} again; it goes on where it stopped"
    n_parts = _count_parts(record)
    if n_parts is None:
        return Completeness(location, lacks="its objects are not all measured yet", remedy=remedy)
    n_done = len(stored_parts(root, f"{TABLES}/{name}{_TABLE}", n_parts))
    return Completeness(location, n_parts, n_parts - n_done, remedy=remedy, unit="parts")


def _count_parts(record: TableRecord) -> int | None:
    """Number of files of a table; None if it is known only when all blocks are measured, and they are not yet."""
    if record.found is not None:
        return len(record.found.starts)
    if record.input.n_objects < 0 or not record.parameters.rows:
        return None
    return max(1, ceil_divide(record.input.n_objects, record.parameters.rows))


def _judge_night(location: str, outputs: list[str]) -> Completeness:
    """A night is complete if each output that it began is done."""
    n_missing = sum(read_done(output) is None for output in outputs)
    remedy = f"run the same `segment-slide segment-new` into {location} again"
    return Completeness(location, len(outputs), n_missing, remedy=remedy, unit="outputs")


def find_outputs(folder: str) -> list[str]:
    """Outputs of a night, and those that it has begun and not created yet; [] if it is no night's folder.

    Parameters
    ----------
    folder : str
        Folder of one model's outputs, or the folder around those of all models (`pipeline.nights.outputs`).
    """
    names = store.list_names(folder) - {IMAGES}
    inner = {name for name in names if not name.endswith(_OUTPUT) and not is_archive_name(name)}
    return sorted(_outputs_in(folder) + [output for name in inner for output in _outputs_in(store.join(folder, name))])


def _outputs_in(folder: str) -> list[str]:
    paths = {name: store.join(folder, name) for name in store.list_names(folder)}
    begun = [path.removesuffix(BEGUN_SUFFIX) for name, path in paths.items() if name.endswith(_OUTPUT + BEGUN_SUFFIX)]
    done = [path for name, path in paths.items() if name.endswith(_OUTPUT) and read_done(path) is not None]
    return list({*begun, *done})
