"""Where a night's results lie, and how each shows its state: done, failed, unfinished. Nothing else is remembered.

::

    outputs/
    ├── images/<name>.ome.zarr              microscope files converted, shared by all models
    └── <model>-<first 12 of its sha256>/
        ├── <name>.ome.zarr                 one acquisition's output
        │   └── segment-slide.done.json     written last
        ├── <name>.report.html              the page about it
        ├── <name>.ome.zarr.begun.json      which content it is made from; deleted when it is done
        ├── <name>.ome.zarr.failed.json     how often it failed and why; delete it to start counting again
        └── <name>.ome.zarr.questions.json  what somebody was asked to decide; delete it to be asked again
"""

from dataclasses import dataclass
from pathlib import Path

from segment_slide.pipeline.ingest.plan import fingerprint_files
from segment_slide.pipeline.ingest.record import read_ingest_record
from segment_slide.pipeline.manifest.sealing import unseal_file
from segment_slide.pipeline.measurement.record import TABLES
from segment_slide.pipeline.nights.acquisitions import Acquisition
from segment_slide.pipeline.nights.notes import DONE_FILE, read_done
from segment_slide.pipeline.storage import names, store
from segment_slide.pipeline.storage.files import delete, exists, write_file
from segment_slide.pipeline.storage.lock import hold
from segment_slide.pipeline.storage.names import label_group
from segment_slide.pipeline.storage.record import read_mark

IMAGES = "images"
_PROBE_BYTES = 1 << 20  # a disk that is too full for a shard may still have room for a small note


@dataclass(frozen=True)
class Layout:
    """Where the results of one model are written.

    Parameters
    ----------
    outputs : str
        Folder or URL for the results of all models.
    model_path, model_sha256 : str
        The checkpoint.
    """

    outputs: str
    model_path: str
    model_sha256: str

    @property
    def folder(self) -> str:
        """Folder of this version of the model."""
        return store.join(self.outputs, f"{Path(self.model_path).stem}-{self.model_sha256[:12]}")

    def output_of(self, name: str) -> str:
        """Path of an acquisition's output."""
        return store.join(self.folder, output_name(name))

    def image_of(self, name: str) -> str:
        """Path of an acquisition's conversion."""
        return store.join(self.outputs, IMAGES, output_name(name))

    def check_writable(self) -> None:
        """Write a file and delete it, to see whether results can be written.

        Raises
        ------
        OutputError
            If the disk is full, read-only or gone.
        """
        probe = store.join(self.folder, ".probe")
        write_file(probe, bytes(_PROBE_BYTES))
        delete(probe)


def output_name(name: str) -> str:
    """File name of an acquisition's output; several acquisitions may get the same name.

    >>> output_name("a/slide.svs"), output_name("b.zarr"), output_name("b.ome.zarr")
    ('a/slide.svs.ome.zarr', 'b.ome.zarr', 'b.ome.zarr')
    """
    return f"{name.removesuffix('.zarr').removesuffix('.ome') if name.endswith('.zarr') else name}.ome.zarr"


# -- what is there -----------------------------------------------------------------------------------------------


def missing_parts(output: str, name: str, *, instances: bool, table: bool) -> list[str]:
    """List the parts of a finished output that are missing or were deleted.

    Parameters
    ----------
    output : str
        The output.
    name : str
        Its label image.
    instances, table : bool
        Whether it should have objects, and a table of them.
    """
    groups = [label_group(name), *([names.instance_group(name)] if instances else [])]
    missing = [group for group in groups if not exists(store.join(output, group, "zarr.json"))]
    if table and not store.list_names(store.join(output, _table(name))):
        missing.append(_table(name))
    return missing


def _table(name: str) -> str:
    return f"{TABLES}/{names.instances_name(name)}.parquet"


def check_free(output: str) -> None:
    """Refuse an output that another run is writing, before anything in it is deleted.

    Raises
    ------
    OutputError
        Caused by a `BlockingIOError`, if another run holds the output.
    """
    if store.is_occupied(output):
        with hold(output, lambda: None):
            pass


def delete_unfinished(output: str) -> None:
    """Delete an output that was begun from a content that the acquisition no longer has; nobody else's files."""
    if read_mark(output).shows and read_done(output) is None:
        delete(output)


def reopen(output: str, name: str) -> None:
    """Mark an output as not done, before the parts that somebody deleted are made again.

    If the class map was deleted, its objects are deleted too, and so is the table if the objects are gone: the stages
    refuse to continue parts that were made from something else. If the output is not marked as done, nothing happens.
    """
    if read_done(output) is None:
        return
    instances, table = names.instance_group(name), _table(name)
    missing = missing_parts(output, name, instances=True, table=False)
    if label_group(name) in missing:
        delete(store.join(output, instances))
    if missing:
        for path in (table, f"{table.removesuffix('.parquet')}.work"):
            delete(store.join(output, path))
    # Deleted last: if this run is killed before, the next one finds the mark and calls this function again.
    unseal_file(output, DONE_FILE)
    delete(store.join(output, DONE_FILE))


def delete_stale_image(layout: Layout, acquisition: Acquisition) -> None:
    """Delete the conversion of a file's earlier content, unless a finished output of some model shows it."""
    image = layout.image_of(acquisition.name)
    record = read_ingest_record(image)
    if acquisition.is_zarr or record is None:
        return
    made_from = record.ingested_from
    if made_from.n_files > len(acquisition.files) == 1:
        return  # a slide of several files that are not known here: the one alone cannot tell
    if made_from.fingerprint == fingerprint_files(acquisition.files):
        return
    models = store.list_names(layout.outputs) - {IMAGES}
    if not any(read_done(store.join(layout.outputs, model, output_name(acquisition.name))) for model in models):
        delete(image)
