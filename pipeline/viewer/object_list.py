"""What the viewer says of each object: neuroglancer's segment properties, from the table or from a label image.

The viewer loads all of them at once. For 100,000 objects that is about 10 MB of text, which takes a browser 1-2 s.
"""

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segment_slide.pipeline.errors import BlockError
from segment_slide.pipeline.measurement.table import part_path, read_part
from segment_slide.pipeline.viewer.metadata import as_number, as_objects, is_id

if TYPE_CHECKING:
    import pyarrow as pa

MOST_OBJECTS = 100_000
_MOST_INTENSITIES = 4
_SHOWN = (  # of each line, the first column that the table has
    ("area_um2", "volume_um3", "area_px", "volume_px"),
    ("equivalent_diameter_um", "equivalent_diameter_px"),
    ("perimeter_um", "surface_um2", "perimeter_px"),
    ("eccentricity",),
    ("probability_mean",),
)
_SIGNIFICANT = 5  # digits: the viewer shows no more
_RESERVED = ("class", "classes", "label")  # ids of our own properties, and the viewer's word for a name


@dataclass(frozen=True)
class ObjectTable:
    """What is known of objects: columns of equal lengths; names of classes may be empty."""

    ids: Sequence[int]
    classes: Sequence[str]
    numbers: Mapping[str, Sequence[float | None]]
    units: Mapping[str, str]


def too_many(n_objects: int) -> str:
    """Return the note on a table with too many objects to show."""
    return f"The measurements of {n_objects:,} objects are left out: a browser reads up to {MOST_OBJECTS:,}."


def read_objects(location: str, table: str, n_parts: int, notes: list[str]) -> ObjectTable | None:
    """Read the most informative columns of a table; None if it has too many rows, or none that can be read.

    Parameters
    ----------
    location : str
        The store.
    table : str
        Folder in the store that holds the table's parts.
    n_parts : int
        Number of parts.
    notes : list of str
        Notes on what is left out are added: parts that are damaged, or written by another program.
    """
    rows: dict[str, list[Any]] = {}
    schema: pa.Schema | None = None
    for number in range(n_parts):
        path = part_path(location, table, number)
        try:
            part = read_part(location, table, number, None)
        except BlockError as error:
            notes.append(f"Measurements of some objects are left out: {error}")
            continue
        if schema is None:
            if not _has_ids(part.schema):
                notes.append(f"{path} is left out: it has no column of ids, as tables of segment-slide do.")
                continue
            schema = part.schema
            rows = {column: [] for column in _choose_columns(schema)}
        if any(column not in part.schema.names or not _is_alike(part.schema, schema, column) for column in rows):
            notes.append(f"{path} is left out: it has other columns than the parts before it.")
            continue
        if len(rows["id"]) + part.num_rows > MOST_OBJECTS:
            notes.append(too_many(len(rows["id"]) + part.num_rows))
            return None
        for column in rows:
            rows[column] += part[column].to_pylist()
    if schema is None or not rows["id"]:
        return None
    return _make_objects(schema, rows)


def _make_objects(schema: "pa.Schema", rows: dict[str, list[Any]]) -> ObjectTable:
    kept = _first_of_each(rows["id"])
    rows = {column: [values[index] for index in kept] for column, values in rows.items()}
    measured = [column for column in rows if column not in ("id", "class_name")]
    units = {column: ((schema.field(column).metadata or {}).get(b"unit") or b"").decode() for column in measured}
    numbers = _drop_unknown({column: rows[column] for column in measured})
    return ObjectTable(rows["id"], [str(name or "") for name in rows.get("class_name", [])], numbers, units)


def _first_of_each(ids: Sequence[object]) -> list[int]:
    """Return the index of the first row of each valid id."""
    first: dict[int, int] = {}
    for index, value in enumerate(ids):
        if isinstance(value, int) and is_id(value):
            first.setdefault(value, index)
    return list(first.values())


def _has_ids(schema: "pa.Schema") -> bool:
    import pyarrow as pa

    return "id" in schema.names and pa.types.is_integer(schema.field("id").type)


def _is_alike(found: "pa.Schema", wanted: "pa.Schema", column: str) -> bool:
    """Whether two parts hold the same kind of values; a column without any value fits every kind."""
    types = found.field(column).type, wanted.field(column).type
    return types[0] == types[1] or any(str(item) == "null" for item in types)


def _choose_columns(schema: "pa.Schema") -> list[str]:
    import pyarrow as pa

    def is_number(column: str) -> bool:
        kind = schema.field(column).type
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))

    there = [column for column in schema.names if schema.names.count(column) == 1 and is_number(column)]
    known = [[column for column in line if column in there] for line in _SHOWN]
    intensities = [column for column in there if column.startswith("intensity_mean_")]
    named = ["class_name"] if schema.names.count("class_name") == 1 else []
    return ["id", *named, *(column for line in known for column in line), *intensities[:_MOST_INTENSITIES]]


def _drop_unknown(numbers: Mapping[str, Sequence[float | None]]) -> dict[str, Sequence[float | None]]:
    """Drop columns without values (no pixel size); of each line of `_SHOWN` keep the first column that is left."""
    kept = {name: values for name, values in numbers.items() if any(value is not None for value in values)}
    for line in _SHOWN:
        for name in [name for name in line if name in kept][1:]:
            del kept[name]
    return kept


def read_properties(label: Mapping[str, Any]) -> ObjectTable | None:
    """Read what "image-label" says of label values: classes and other numbers; None if it says nothing."""
    items = as_objects(label.get("properties"))
    items = [items[index] for index in _first_of_each([item.get("label-value") for item in items])]
    if not items or len(items) > MOST_OBJECTS:
        return None
    names = dict.fromkeys(key for item in items for key, value in item.items() if not math.isnan(as_number(value)))
    names.pop("label-value", None)
    numbers = {name: [_number_or_none(item.get(name)) for item in items] for name in names}
    classes = [_name(item.get("class")) for item in items]
    return ObjectTable([item["label-value"] for item in items], classes if any(classes) else [], numbers, {})


def _name(value: object) -> str:
    return "" if value is None else str(value)


def _number_or_none(value: Any) -> float | None:
    return None if math.isnan(as_number(value)) else value


def make_info(table: ObjectTable) -> bytes:
    """Make the file ``info`` of a source of segment properties."""
    properties: list[dict[str, Any]] = []
    if table.classes:
        properties.append({"id": "class", "type": "label", "values": list(table.classes)})
        tags = sorted({_tag(name) for name in table.classes})
        if len(tags) > 1:  # filters, with the number of objects of each
            values = [[tags.index(_tag(name))] for name in table.classes]
            properties.append({"id": "classes", "type": "tags", "tags": tags, "values": values})
    properties += _number_properties(table)
    inline = {"ids": [str(number) for number in table.ids], "properties": properties}
    return json.dumps({"@type": "neuroglancer_segment_properties", "inline": inline}, separators=(",", ":")).encode()


def _tag(name: str) -> str:
    """Change a name so that the viewer's query can hold it: there "#" begins a tag, and a space ends it."""
    return "_".join(name.split()).lstrip("#") or "_"


def _number_properties(table: ObjectTable) -> Iterator[dict[str, Any]]:
    taken = set(_RESERVED)
    for name, values in table.numbers.items():
        unit, plain = table.units.get(name, ""), re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "value"
        shown = [_shorten(value) for value in values]
        is_whole = all(isinstance(value, int) and abs(value) < 1 << 31 for value in shown)
        candidates = itertools.chain([plain], (f"{plain}_{number}" for number in itertools.count(2)))
        known_as = next(candidate for candidate in candidates if candidate not in taken)
        taken.add(known_as)
        described = ", ".join(([] if known_as == name else [name]) + ([f"in {unit}"] if unit else []))
        yield {
            "id": known_as,
            "type": "number",
            "data_type": "int32" if is_whole else "float32",
            "values": shown,
            **({"description": described} if described else {}),
        }


def list_numbers(table: ObjectTable) -> list[str]:
    """Names of the measurements in the viewer."""
    return [item["id"] for item in _number_properties(table)]


def _shorten(value: float | None) -> float | str:
    """Shorten a number to few digits; JSON has no NaN, but the viewer reads the word as one."""
    if value is None or math.isnan(as_number(value)):
        return "NaN"
    return value if isinstance(value, int) else float(f"{value:.{_SIGNIFICANT}g}")
