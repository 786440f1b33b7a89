"""What the viewer says of each object: neuroglancer's segment properties, from the table or from a label image.

It loads all of them at once: for 100,000 objects some 10 MB of text, which a browser reads in a second or two.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline import store
from pipeline.measure_table import read_part, read_schema, stored_parts

if TYPE_CHECKING:
    import pyarrow as pa

MOST_OBJECTS = 100_000
_MOST_INTENSITIES = 4
_SHOWN = (  # the first of each line that is known
    ("area_um2", "volume_um3", "area_px", "volume_px"),
    ("equivalent_diameter_um", "equivalent_diameter_px"),
    ("perimeter_um", "surface_um2", "perimeter_px"),
    ("eccentricity",),
    ("probability_mean",),
)
_SIGNIFICANT = 5  # digits: the viewer shows no more


@dataclass(frozen=True)
class ObjectTable:
    """What is known of objects: columns of equal lengths; class names may be empty."""

    ids: Sequence[int]
    classes: Sequence[str]
    numbers: Mapping[str, Sequence[float | None]]
    units: Mapping[str, str]


def read_objects(location: str, name: str) -> ObjectTable | None:
    """The columns of ``tables/<name>.parquet`` that tell most; None if there is no table.

    Raises
    ------
    BlockError
        If a part is damaged.
    """
    table = f"tables/{name}.parquet"
    parts = sorted(stored_parts(location, table))
    if not parts:
        return None
    schema = read_schema(location, table, parts[0])
    wanted = ["id", *(["class_name"] if "class_name" in schema.names else []), *_choose_columns(schema)]
    rows: dict[str, list[Any]] = {column: [] for column in wanted}
    for number in parts:
        part = read_part(location, table, number, wanted)
        for column in wanted:
            rows[column] += part[column].to_pylist()
    measured = [column for column in wanted if column not in ("id", "class_name")]
    units = {column: ((schema.field(column).metadata or {}).get(b"unit") or b"").decode() for column in measured}
    numbers = _drop_unknown({column: rows[column] for column in measured})
    return ObjectTable(rows["id"], rows.get("class_name", []), numbers, units)


def _choose_columns(schema: "pa.Schema") -> list[str]:
    known = [[column for column in line if column in schema.names] for line in _SHOWN]
    intensities = [column for column in schema.names if column.startswith("intensity_mean_")]
    return [column for line in known for column in line] + intensities[:_MOST_INTENSITIES]


def _drop_unknown(numbers: Mapping[str, Sequence[float | None]]) -> dict[str, Sequence[float | None]]:
    """Without columns of nothing (no pixel size), and of each line only the first that is known."""
    kept = {name: values for name, values in numbers.items() if any(value is not None for value in values)}
    for line in _SHOWN:
        for name in [name for name in line if name in kept][1:]:
            del kept[name]
    return kept


def read_properties(label: Mapping[str, Any]) -> ObjectTable | None:
    """What "image-label" says of label values: their classes and other numbers; None if it says nothing."""
    items = [item for item in label.get("properties") or () if isinstance(item, dict)]
    items = [item for item in items if isinstance(item.get("label-value"), int) and item["label-value"] > 0]
    if not items or len(items) > MOST_OBJECTS:
        return None
    names = dict.fromkeys(key for item in items for key, value in item.items() if _is_number(value))
    names.pop("label-value", None)
    numbers = {name: [_number_or_none(item.get(name)) for item in items] for name in names}
    classes = [str(item.get("class", "")) for item in items]
    return ObjectTable([item["label-value"] for item in items], classes if any(classes) else [], numbers, {})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number_or_none(value: Any) -> float | None:
    return value if _is_number(value) else None


def make_info(table: ObjectTable) -> bytes:
    """The file ``info`` of a source of segment properties."""
    properties: list[dict[str, Any]] = []
    if table.classes:
        names = sorted(set(table.classes))
        properties.append({"id": "class", "type": "label", "values": list(table.classes)})
        if len(names) > 1:  # filters, with the number of objects of each
            values = [[names.index(name)] for name in table.classes]
            properties.append({"id": "classes", "type": "tags", "tags": [_tag(n) for n in names], "values": values})
    properties += _number_properties(table)
    inline = {"ids": [str(number) for number in table.ids], "properties": properties}
    return json.dumps({"@type": "neuroglancer_segment_properties", "inline": inline}, separators=(",", ":")).encode()


def _tag(name: str) -> str:
    return "_".join(name.split()) or "_"


def _number_properties(table: ObjectTable) -> Iterator[dict[str, Any]]:
    for name, values in table.numbers.items():
        unit = table.units.get(name, "")
        shown = [_shorten(value) for value in values]
        is_whole = all(isinstance(value, int) and abs(value) < 1 << 31 for value in shown)
        yield {
            "id": name,
            "type": "number",
            "data_type": "int32" if is_whole else "float32",
            "values": shown,
            **({"description": f"in {unit}"} if unit else {}),
        }


def _shorten(value: float | None) -> float | str:
    """A number with few digits; JSON has no NaN, but the viewer takes the word for one."""
    if value is None or not math.isfinite(value):
        return "NaN"
    return value if isinstance(value, int) else float(f"{value:.{_SIGNIFICANT}g}")


def label_properties(location: str) -> Mapping[str, Any]:
    """The "image-label" block of a label image."""
    attributes: Any = store.read_attributes(location) or {}
    content = attributes.get("ome", attributes)
    label = content.get("image-label") if isinstance(content, dict) else None
    return label if isinstance(label, dict) else {}
