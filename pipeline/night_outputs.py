"""Where a night's results lie, and what they say of themselves: done, failed, unfinished. There is no other memory.

::

    outputs/
    ├── images/<name>.ome.zarr              microscope files converted, shared by all models
    └── <model>-<first 12 of its sha256>/
        ├── <name>.ome.zarr                 one acquisition's output
        │   └── segment-slide.done.json     written last
        └── <name>.ome.zarr.failed.json     how often it failed and why; deleting it forgets that
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline import instance_output, store
from pipeline.acquisitions import Acquisition
from pipeline.errors import OutputError
from pipeline.files import delete, exists, read_file, write_file
from pipeline.ingest_plan import fingerprint_files
from pipeline.measure_plan import TABLES
from pipeline.output import label_group
from pipeline.record import ATTRIBUTE, code_version

Note = TypeVar("Note")

log = logging.getLogger(__name__)

DONE_FILE, FAILED_SUFFIX, IMAGES = "segment-slide.done.json", ".failed.json", "images"
_PROBE_BYTES = 1 << 20  # a disk that is full for a shard may still take a note


@dataclass(frozen=True)
class Layout:
    """Where the results of one model go.

    Parameters
    ----------
    outputs : str
        Folder or URL of all models.
    model_path, model_sha256 : str
        The checkpoint.
    """

    outputs: str
    model_path: str
    model_sha256: str

    @property
    def folder(self) -> str:
        """Of this version of the model."""
        return store.join(self.outputs, f"{Path(self.model_path).stem}-{self.model_sha256[:12]}")

    def output_of(self, name: str) -> str:
        """Where an acquisition's result lies."""
        return store.join(self.folder, output_name(name))

    def image_of(self, name: str) -> str:
        """Where its conversion lies."""
        return store.join(self.outputs, IMAGES, output_name(name))

    def check_writable(self) -> None:
        """Write a file and delete it.

        Raises
        ------
        OutputError
            If the disk is full, read-only or gone.
        """
        probe = store.join(self.folder, ".probe")
        write_file(probe, bytes(_PROBE_BYTES))
        delete(probe)


@dataclass(frozen=True)
class Done:
    """What the last file of an output says.

    Attributes
    ----------
    name, fingerprint, size_bytes, n_files
        Of the acquisition.
    model_sha256 : str
        Of the checkpoint.
    n_objects : int or None
        None if none were numbered.
    n_pixels : int
        Of the label image.
    stage_seconds : dict
        Wall time per stage, of the run that finished it.
    code_version : str
        Of this package.
    """

    name: str
    fingerprint: str
    size_bytes: int
    n_files: int
    model_sha256: str
    n_objects: int | None
    n_pixels: int
    stage_seconds: Mapping[str, float]
    code_version: str


@dataclass(frozen=True)
class Failure:
    """The note beside the output of an acquisition that failed.

    Attributes
    ----------
    tries : int
        How often, as it is now.
    reason : str
        Of the last time.
    fingerprint : str
        Of the acquisition that failed; a changed one starts anew.
    model_sha256, last
        With which model, and when (UTC).
    """

    tries: int
    reason: str
    fingerprint: str
    model_sha256: str
    last: str


def output_name(name: str) -> str:
    """File name of a result; several acquisitions may ask for the same.

    >>> output_name("a/slide.svs"), output_name("b.zarr"), output_name("b.ome.zarr")
    ('a/slide.svs.ome.zarr', 'b.ome.zarr', 'b.ome.zarr')
    """
    return f"{name.removesuffix('.zarr').removesuffix('.ome') if name.endswith('.zarr') else name}.ome.zarr"


# -- notes -------------------------------------------------------------------------------------------------------


def read_done(output: str) -> Done | None:
    """What an output's last file says; None if it is not finished."""
    content = _read_json(store.join(output, DONE_FILE))
    return None if content is None else _from_json(Done, content)


def write_done(layout: Layout, acquisition: Acquisition, n_objects: int | None, n_pixels: int, seconds: Any) -> Done:
    """Say that an output is finished."""
    done = Done(
        name=acquisition.name,
        fingerprint=acquisition.fingerprint,
        size_bytes=acquisition.size_bytes,
        n_files=acquisition.n_files,
        model_sha256=layout.model_sha256,
        n_objects=n_objects,
        n_pixels=n_pixels,
        stage_seconds={stage: round(value, 3) for stage, value in seconds.items()},
        code_version=code_version(),
    )
    _write_json(store.join(layout.output_of(acquisition.name), DONE_FILE), done)
    return done


def failure_path(output: str) -> str:
    """Where the note of a failure lies."""
    return f"{output}{FAILED_SUFFIX}"


def read_failure(output: str) -> Failure | None:
    """The note beside an output, if there is one."""
    content = _read_json(failure_path(output))
    return None if content is None else _from_json(Failure, content)


def write_failure(output: str, failure: Failure) -> None:
    """Leave a note beside an output."""
    _write_json(failure_path(output), failure)


def delete_failure(output: str) -> None:
    """Forget that it failed."""
    delete(failure_path(output))


def _read_json(path: str) -> dict[str, Any] | None:
    try:
        content = json.loads(read_file(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        log.warning("%s is damaged and not taken into account: %s", path, error)
        return None
    except Exception as error:  # fsspec back ends raise classes of their own
        raise OutputError(f"{path} cannot be read: {error}") from error
    return content if isinstance(content, dict) else None


def _from_json(kind: type[Note], content: dict[str, Any]) -> Note | None:
    try:
        return kind(**content)
    except TypeError:  # of another version of this package, or edited
        return None


def _write_json(path: str, content: Any) -> None:
    write_file(path, (json.dumps(asdict(content), indent=1) + "\n").encode())


# -- what is there -----------------------------------------------------------------------------------------------


def missing_parts(output: str, name: str, *, instances: bool, table: bool) -> list[str]:
    """Parts of a finished output that are not there (any more).

    Parameters
    ----------
    output : str
        The store.
    name : str
        Its label image.
    instances, table : bool
        Whether it should have objects, and a table of them.
    """
    groups = [label_group(name), *([instance_output.instance_group(name)] if instances else [])]
    missing = [group for group in groups if not exists(store.join(output, group, "zarr.json"))]
    if table and not store.list_names(store.join(output, _table(name))):
        missing.append(_table(name))
    return missing


def _table(name: str) -> str:
    return f"{TABLES}/{instance_output.instances_name(name)}.parquet"


def delete_unfinished(output: str) -> None:
    """Delete an output that was begun from a content that the acquisition no longer has; nobody else's files."""
    record = (store.read_attributes(output) or {}).get(ATTRIBUTE) or {}
    if "shows" in record and read_done(output) is None:
        delete(output)


def reopen(output: str, name: str) -> None:
    """Take back that an output is done, before what somebody deleted of it is made again.

    Objects of a class map that is not there any more go with it, and so does the table of such objects: the stages
    refuse to go on with what was made from something else. Where nothing says that it was done, nothing is deleted.
    """
    if read_done(output) is None:
        return
    instances, table = instance_output.instance_group(name), _table(name)
    missing = missing_parts(output, name, instances=True, table=False)
    if label_group(name) in missing:
        delete(store.join(output, instances))
    if missing:
        for path in (table, f"{table.removesuffix('.parquet')}.work"):
            delete(store.join(output, path))
    delete(store.join(output, DONE_FILE))  # last: else a kill from here on would leave a half-made output "done"


def delete_stale_image(layout: Layout, acquisition: Acquisition) -> None:
    """Delete the conversion of an earlier content of a file, unless a finished output of some model shows it."""
    image = layout.image_of(acquisition.name)
    record = ((store.read_attributes(image) or {}).get(ATTRIBUTE) or {}).get("ingested_from")
    if acquisition.is_zarr or record is None or record["n_files"] != 1:  # of several, the file alone cannot tell
        return
    if record["fingerprint"] == fingerprint_files([acquisition.path]):
        return
    models = store.list_names(layout.outputs) - {IMAGES}
    if not any(read_done(store.join(layout.outputs, model, output_name(acquisition.name))) for model in models):
        delete(image)
