"""A table of objects as Parquet files, one per range of ids. Each is written whole or not at all, and read by column.

::

    tables/<name>.parquet/part-00000.parquet, part-00001.parquet, …

Parquet readers open the folder as one table (``pyarrow.parquet.read_table``, pandas, polars, DuckDB). Files hold no
times and no paths, so equal objects give equal bytes. Units are in each column's metadata; provenance is in the
schema's metadata, under ``segment_slide``.
"""

import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segment_slide.pipeline.errors import BlockError, UnreachableError
from segment_slide.pipeline.measurement import sums
from segment_slide.pipeline.measurement.columns import Column, TableSpec
from segment_slide.pipeline.measurement.record import TableRecord
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.files import exists, read_file, write_file
from segment_slide.pipeline.storage.record import ATTRIBUTE
from segment_slide.pipeline.storage.sections import write_section
from segment_slide.pipeline.storage.work_folder import Arrays
from segment_slide.pipeline.zarr_stores.checked import has_listing
from segment_slide.pipeline.zarr_stores.written import note_file

if TYPE_CHECKING:
    import pyarrow as pa

_PART = re.compile(r"part-(\d{5,})\.parquet")


def make_table(spec: TableSpec, objects: Arrays, provenance: TableRecord) -> "pa.Table":
    """Objects as an Arrow table.

    Parameters
    ----------
    spec : TableSpec
        The columns.
    objects : Arrays
        Sums as `pipeline.measurement.fragments.merge_fragments` returns them.
    provenance : TableRecord
        Inputs of the measurement, kept in the schema's metadata.
    """
    import pyarrow as pa

    fields, values = [], []
    for column in make_columns(spec, objects):
        array = _to_arrow(column, len(objects["count"]))
        fields.append(pa.field(column.name, array.type, metadata={"unit": column.unit} if column.unit else None))
        values.append(array)
        if column.name == "class":
            names = _name_classes(spec, objects["class"])
            fields.append(pa.field("class_name", names.type))
            values.append(names)
    metadata = {ATTRIBUTE: json.dumps(write_section(provenance), sort_keys=True)}
    return pa.Table.from_arrays(values, schema=pa.schema(fields, metadata=metadata))


def make_columns(spec: TableSpec, objects: Arrays) -> list[Column]:
    """All columns of some objects except the names of classes: the id, and those of each row of `sums.SUMS`.

    Parameters
    ----------
    spec : TableSpec
        The columns.
    objects : Arrays
        Sums as `pipeline.measurement.fragments.merge_fragments` returns them.
    """
    ids = objects["ids"] & np.uint64((1 << spec.id_bits) - 1)
    return [Column("id", "", ids), *(column for row in sums.SUMS for column in row.columns(spec, objects))]


def _to_arrow(column: Column, n_rows: int) -> "pa.Array":
    import pyarrow as pa

    if column.values is None:
        return pa.nulls(n_rows, pa.float64())
    return pa.array(column.values, from_pandas=column.values.dtype.kind == "f")  # NaN becomes null


def _name_classes(spec: TableSpec, classes: np.ndarray) -> "pa.DictionaryArray":
    """Class names of values, dictionary-encoded with all classes."""
    import pyarrow as pa

    n_names = max(len(spec.class_names), int(classes.max(initial=0)) + 1)
    known = [spec.class_name(value) for value in range(n_names)]
    return pa.DictionaryArray.from_arrays(pa.array(classes.astype(np.int16)), pa.array(known, pa.string()))


def part_path(location: str, table: str, number: int) -> str:
    """File of a part."""
    return store.join(location, table, f"part-{number:05d}.parquet")


def is_part(name: str) -> bool:
    """Whether a file is called like a part.

    >>> is_part("part-00077.parquet"), is_part("notes.parquet")
    (True, False)
    """
    return _PART.fullmatch(name) is not None


def stored_parts(location: str, table: str, n_parts: int) -> set[int]:
    """Numbers of the stored parts below `n_parts`. A file of 0 bytes, as after a power cut, does not count.

    Raises
    ------
    UnreachableError
        If the store cannot be reached.
    """
    if not has_listing(location):
        return {number for number in range(n_parts) if _is_served(part_path(location, table, number))}
    folder = store.join(location, table)
    found = {name: _PART.fullmatch(name) for name in store.list_names(folder)}
    numbers = {
        int(match.group(1))
        for name, match in found.items()
        if match and (store.is_remote(location) or os.path.getsize(store.join(folder, name)) > 0)
    }
    return numbers & set(range(n_parts))


def _is_served(path: str) -> bool:
    try:
        return exists(path)
    except Exception as error:  # fsspec back ends raise classes of their own
        raise UnreachableError(f"{path} cannot be reached: {error}") from error


def write_part(location: str, table: str, number: int, content: "pa.Table") -> None:
    """Store a part: write a temporary file, then rename it.

    Raises
    ------
    OutputError
        If it cannot be written, for example because the disk is full or the connection is lost.
    """
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(content, file, compression="zstd", write_page_checksum=True)
    path, content_bytes = part_path(location, table, number), file.getvalue()
    write_file(path, content_bytes)
    if not store.is_remote(path):
        note_file(Path(path), content_bytes)


def read_part(location: str, table: str, number: int, columns: Sequence[str] | None) -> "pa.Table":
    """Read some or all columns of a part.

    Raises
    ------
    BlockError
        If the file is damaged. The message names it.
    """
    import pyarrow.parquet as pq

    path = part_path(location, table, number)
    try:
        wanted = columns and list(columns)
        return pq.read_table(io.BytesIO(read_file(path)), columns=wanted, page_checksum_verification=True)
    except Exception as error:  # on damaged bytes, Arrow and file systems raise many types
        if not has_listing(path) and type(error).__module__.startswith("aiohttp"):
            raise UnreachableError(f"{path} cannot be reached: {error}") from error
        raise BlockError(
            f"{path} is damaged ({type(error).__name__}: {error}); run `segment-slide measure` again: it makes this "
            f"file anew"
        ) from error


def read_schema(location: str, table: str, number: int) -> "pa.Schema":
    """Names, types and units of a part's columns.

    Raises
    ------
    BlockError
        If the file is damaged. The message names it.
    """
    return read_part(location, table, number, None).schema
