"""What is shown of a store, decided without a browser: layers, places, looks, and what is left out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segment_slide.pipeline.errors import InputError, PipelineError
from segment_slide.pipeline.storage import ome, store
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.record import ATTRIBUTE
from segment_slide.pipeline.viewer.describe import describe_view
from segment_slide.pipeline.viewer.layers import unsupported_codecs
from segment_slide.pipeline.viewer.object_list import ObjectTable, make_info, read_properties
from segment_slide.pipeline.viewer.page import make_page
from segment_slide.pipeline.viewer.place import place_described
from segment_slide.pipeline.viewer.site import Site, client_files
from tests.flows.support import mark_of, noise, write_array, write_segmentation
from tests.pipeline.viewer.support import layer_file, list_labels, read_view, write_image

RGB = {"channels": [{"label": n, "color": c} for n, c in (("r", "FF0000"), ("g", "00FF00"), ("b", "0000FF"))]}


def layers(site: Site) -> dict[str, dict[str, Any]]:
    return {layer["name"]: layer for layer in read_view(site)["state"]["layers"]}


def described(site: Site, name: str) -> dict[str, Any]:
    content = json.loads(site.files[layer_file(site, name)])
    attributes = content.get("attributes", content)
    return attributes.get("ome", attributes)["multiscales"][0]


def places(site: Site, name: str, level: int = 0) -> tuple[list[float], list[float]]:
    """Scale and translation of a level, as the viewer is told."""
    scale, translation = described(site, name)["datasets"][level]["coordinateTransformations"]
    return scale["scale"], translation["translation"]


def output(folder: Path, classes: np.ndarray, axes: str = "yx", *, image: Path, **recorded: Any) -> Path:
    """A segmentation whose record names an image."""
    scale = recorded.pop("scale", ())
    path = write_segmentation(folder / "out.ome.zarr", classes, axes, scale=scale)
    record = store.read_attributes(str(path), "labels/segmentation")[ATTRIBUTE]
    record["input"] = {"location": str(image), "level": 0, "ranges": {}, "axes": axes, **recorded}
    record["input"].setdefault("fingerprint", mark_of(image, record["input"]))
    shown = ome.label_attributes(
        ome.parse_multiscale(store.read_attributes(str(path), "labels/segmentation"), "here"), ("background", "cell")
    )
    store.update_attributes(str(path), "labels/segmentation", {ATTRIBUTE: record, "ome": shown})
    return path


def test_a_photograph_is_one_layer_whose_channels_are_read_together(tmp_path):
    write_image(tmp_path / "a", np.full((3, 40, 50), 230, np.uint8), "cyx", omero=RGB)
    site = describe_view(tmp_path / "a")
    assert list(layers(site)) == ["image"]
    assert described(site, "image")["axes"][0] == {"name": "c^"}
    assert read_view(site)["state"]["crossSectionBackgroundColor"] == "#ffffff"


def test_a_photograph_whose_channels_lie_in_files_of_their_own_is_mixed_from_three_layers(tmp_path):
    write_image(tmp_path / "a", noise(3, 40, 50), "cyx", chunks=(1, 40, 50), omero=RGB)
    found = layers(describe_view(tmp_path / "a"))
    assert [layer["shaderControls"]["color"] for layer in found.values()] == ["#ff0000", "#00ff00", "#0000ff"]
    assert {tuple(layer["shaderControls"]["contrast"]["range"]) for layer in found.values()} == {(0, 255)}


def test_channels_have_the_names_colours_and_windows_of_their_metadata(tmp_path):
    window = {"min": 0, "max": 65535, "start": 100, "end": 900}
    channels = [{"label": "DAPI", "color": "0000FF", "window": window}]
    channels += [{"label": "GFP", "color": "00FF00", "window": {**window, "start": 0, "end": 65535}, "active": False}]
    write_image(tmp_path / "a", noise(2, 40, 50).astype(np.uint16), "cyx", omero={"channels": channels})
    found = layers(describe_view(tmp_path / "a"))
    assert list(found) == ["DAPI", "GFP"]
    assert found["DAPI"]["shaderControls"]["color"] == "#0000ff"
    assert found["DAPI"]["shaderControls"]["contrast"]["range"] == [100, 900]
    low, high = found["GFP"]["shaderControls"]["contrast"]["range"]
    assert 0 <= low < high <= 255, "a window of all that 16 bits hold would be black"
    assert [layer["visible"] for layer in found.values()] == [True, False]


def test_of_many_channels_the_first_four_are_visible(tmp_path):
    write_image(tmp_path / "a", noise(7, 40, 50), "cyx")
    found = layers(describe_view(tmp_path / "a"))
    assert [layer["visible"] for layer in found.values()] == [True] * 4 + [False] * 3
    assert [layer["localPosition"] for layer in found.values()] == [[index] for index in range(7)]


def test_an_output_is_shown_over_its_image_with_the_colours_of_its_classes(tmp_path):
    image = write_image(tmp_path / "a", noise(40, 50), "yx", scale=[0.5, 0.5])
    site = describe_view(output(tmp_path, noise(40, 50) // 200, image=image, scale=(0.5, 0.5)))
    found = layers(site)
    assert list(found) == ["image", "segmentation"]
    assert found["segmentation"]["segmentColors"] == {"1": "#e69f00"}
    assert found["segmentation"]["hideSegmentZero"]
    assert set(site.stores.values()) == {str(image), str(tmp_path / "out.ome.zarr/labels/segmentation")}
    assert site.notes == ()


def test_labels_of_a_coarser_level_and_of_later_planes_lie_where_they_were_made(tmp_path):
    image = write_image(tmp_path / "a", noise(6, 40, 48), "zyx", scale=[2.0, 0.5, 0.5], n_levels=2)
    classes = noise(2, 20, 24) // 200
    site = describe_view(output(tmp_path, classes, "zyx", image=image, level=1, ranges={"z": [3, 5]}))
    scale, translation = places(site, "segmentation")
    assert scale == [2.0, 1.0, 1.0]
    assert translation[0] == 6.0
    assert read_view(site)["state"]["position"][2] in (3, 4), "a plane of the labels"
    assert read_view(site)["state"]["layout"] == "xy", "planes were segmented one by one"


def test_without_its_image_an_output_is_shown_alone_and_that_is_told(tmp_path):
    site = describe_view(output(tmp_path, noise(40, 50) // 200, image=tmp_path / "gone"))
    assert list(layers(site)) == ["segmentation"]
    assert "`image='PATH'`" in site.notes[0]
    other = write_image(tmp_path / "b", noise(40, 50), "yx")
    assert list(layers(describe_view(tmp_path / "out.ome.zarr", image=other))) == ["image", "segmentation"]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_of_other_tools_are_found_and_metadata_of_the_same_version_are_made(tmp_path, version):
    image = write_image(tmp_path / "a", noise(40, 50), "yx", version=version)
    write_image(image / "labels" / "n", noise(40, 50) // 200, "yx", version=version, label={})
    list_labels(image, "n", version=version)
    site = describe_view(image)
    assert list(layers(site)) == ["image", "n"]
    assert layers(site)["n"]["source"].endswith("|zarr3:" if version == "0.5" else "|zarr2:")
    assert list(layers(describe_view(image / "labels" / "n"))) == ["image", "n"]
    assert set(described(site, "n")["datasets"][0]["path"].split("/")[:2]) == {".."}


@pytest.mark.parametrize(
    ("scale", "start", "unit", "expected"),
    [
        ([0.5, 0.5], [0.0, 0.0], "micrometer", ([0.5, 0.5], [0.0, 0.0])),
        ([500.0, 500.0], [0.0, 0.0], "nanometer", ([0.5, 0.5], [0.0, 0.0])),
        ([5000.0, 5000.0], [0.0, 0.0], "Å", ([0.5, 0.5], [0.0, 0.0])),
        ([0.5 / 25400, 0.5 / 25400], [0.5 / 25400, 0.0], "inch", ([0.5, 0.5], [0.5, 0.0])),
        ([1.0, 1.0], [0.0, 0.0], None, ([0.5, 0.5], [0.0, 0.0])),
        ([3.0, 3.0], [0.0, 0.0], "micrometer", ([0.5, 0.5], [0.0, 0.0])),
        ([0.5, 0.5], [0.5, 0.0], "micrometer", ([0.5, 0.5], [0.5, 0.0])),
    ],
    ids=["same", "nanometres", "angstrom", "inches", "no unit", "contradiction", "shifted by a pixel"],
)
def test_labels_lie_by_their_metadata_or_by_pixels_where_these_contradict(tmp_path, scale, start, unit, expected):
    image = write_image(tmp_path / "a", noise(40, 50), "yx", scale=[0.5, 0.5])
    units = {"y": unit, "x": unit}
    write_image(image / "labels" / "n", noise(40, 50) // 200, "yx", scale=scale, start=start, units=units, label={})
    list_labels(image, "n")
    site = describe_view(image)
    np.testing.assert_allclose(places(site, "n"), expected)
    assert any("contradict" in note for note in site.notes) == (scale == [3.0, 3.0])


@pytest.mark.parametrize(
    ("unit", "step", "seconds"),
    [("second", 2.0, 2.0), ("millisecond", 500.0, 0.5), ("hour", 0.5, 1800.0), ("day", 1.0, 86400.0),
     ("nanosecond", 5.0, 5e-9), ("min", 2.0, 120.0)],
)  # fmt: skip
def test_times_and_lengths_of_every_unit_are_told_to_the_viewer_in_seconds_and_um(tmp_path, unit, step, seconds):
    units = {"t": unit, "y": "thou", "x": "centimeter"}
    image = write_image(tmp_path / "a", noise(2, 40, 50), "tyx", scale=[step, 0.01, 1e-4], units=units)
    dimensions = read_view(describe_view(image))["state"]["dimensions"]
    assert dimensions["t"] == [pytest.approx(seconds), "s"]
    assert (dimensions["y"], dimensions["x"]) == ([pytest.approx(0.254), "um"], [pytest.approx(1.0), "um"])


def test_half_sized_labels_without_units_cover_the_whole_image(tmp_path):
    image = write_image(tmp_path / "a", noise(40, 50), "yx", scale=[0.5, 0.5])
    labels = write_image(tmp_path / "l", noise(20, 25), "yx", units={})
    placed, note = place_described(describe_image(labels), describe_image(image))
    assert placed is not None
    assert "counts of pixels" in note, "it may as well be a quarter of the image"
    assert placed.step == {"y": 2.0, "x": 2.0}
    assert placed.start == {"y": 0.5, "x": 0.5}, "the centre of the first of two pixels"


def test_pixels_of_unknown_size_are_counted_and_labels_that_know_it_tell_it(tmp_path):
    image = write_image(tmp_path / "a", noise(40, 50), "yx", units={})
    assert read_view(describe_view(image))["state"]["dimensions"] == {"x": [1.0, ""], "y": [1.0, ""]}
    write_image(image / "labels" / "n", noise(40, 50) // 200, "yx", scale=[0.25, 0.25], label={})
    list_labels(image, "n")
    assert read_view(describe_view(image))["state"]["dimensions"] == {"x": [0.25, "um"], "y": [0.25, "um"]}


def test_what_we_write_ourselves_is_decoded_by_the_viewer(tmp_path):
    path = write_segmentation(tmp_path / "o", noise(40, 50) // 200)
    array = zarr.open_array(path / "labels/segmentation/0", mode="r")
    assert unsupported_codecs(array.metadata.to_dict()) == set()


def test_nothing_and_no_such_labels_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        describe_view(tmp_path / "gone")
    image = write_image(tmp_path / "a", noise(40, 50), "yx")
    with pytest.raises(InputError, match="there are none"):
        describe_view(image, name="cells")


def test_a_level_that_is_listed_and_not_there_is_not_told_to_the_viewer(tmp_path):
    image = write_image(tmp_path / "a", noise(40, 50), "yx", n_levels=3)
    (image / "2" / "zarr.json").unlink()
    site = describe_view(image)
    assert [dataset["path"] for dataset in described(site, "image")["datasets"]] == ["../../data/0/0", "../../data/0/1"]


def test_levels_that_all_claim_one_scale_are_laid_by_their_sizes(tmp_path):
    image = write_image(tmp_path / "a", noise(40, 48), "yx", n_levels=2)
    content = json.loads((image / "zarr.json").read_text())
    for dataset in content["attributes"]["ome"]["multiscales"][0]["datasets"]:
        dataset["coordinateTransformations"] = [{"type": "scale", "scale": [1.0, 1.0]}]
    (image / "zarr.json").write_text(json.dumps(content))
    assert places(describe_view(image), "image", 1) == ([2.0, 2.0], [0.5, 0.5])


def test_a_bare_array_is_shown_under_labels_whose_record_knows_its_axes(tmp_path):
    image = write_array(tmp_path / "bare", noise(40, 50))
    site = describe_view(output(tmp_path, noise(40, 50) // 200, image=image))
    assert list(layers(site)) == ["image", "segmentation"]
    assert described(site, "image")["datasets"][0]["path"] == "../../data/0"


def test_labels_that_are_called_like_a_channel_are_told_apart_and_listed(tmp_path):
    omero = {"channels": [{"label": "nuclei"}, {"label": "nuclei"}]}
    image = write_image(tmp_path / "a", noise(2, 40, 50), "cyx", omero=omero)
    write_image(image / "labels" / "nuclei", noise(40, 50) // 200, "yx", label={})
    list_labels(image, "nuclei")
    site = describe_view(image)
    assert list(layers(site)) == ["nuclei", "nuclei 2", "nuclei (labels)"]
    assert "selectedLayer" not in read_view(site)["state"], "no list without a table"


def test_a_volume_is_seen_from_three_sides_and_a_few_planes_are_not(tmp_path):
    for n_planes, layout in ((16, "4panel-alt"), (3, "xy")):
        image = write_image(tmp_path / str(n_planes), noise(n_planes, 40, 50), "zyx", scale=[2.0, 0.5, 0.5])
        assert read_view(describe_view(image))["state"]["layout"] == layout


def test_objects_bring_their_class_and_sizes_along():
    table = ObjectTable([3, 1 << 40], ["cell", "debris"], {"area_um2": [1.5, None], "n": [1, 2]}, {"area_um2": "um2"})
    inline = json.loads(make_info(table))["inline"]
    found = {item["id"]: item for item in inline["properties"]}
    assert inline["ids"] == ["3", str(1 << 40)], "as text: JavaScript's numbers end at 2**53"
    assert found["class"]["values"] == ["cell", "debris"]
    assert found["area_um2"]["values"] == [1.5, "NaN"], "JSON has no NaN, and null would become 0"
    assert (found["area_um2"]["data_type"], found["n"]["data_type"]) == ("float32", "int32")


def test_the_page_loads_nothing_from_elsewhere(tmp_path):
    site = describe_view(write_image(tmp_path / "a", noise(40, 50), "yx"))
    page = site.files["index.html"].decode()
    assert page.index("Content-Security-Policy") < page.index("view.js") < page.index("main."), "in this order"
    assert "http:" not in page
    assert "https:" not in page
    for name in client_files():
        assert name not in page or f'"{name}"' in page
    assert "default-src 'self'" in page


@pytest.mark.parametrize("dtype", ["u2", "i2", "u4", "f4"])
def test_both_orders_of_bytes_are_shown(tmp_path, dtype):
    shown = []
    for order in "<>":
        image = write_image(tmp_path / order, noise(40, 50).astype(order + dtype), "yx", version="0.4")
        labels = (noise(40, 50) // 200).astype(order + ("u4" if dtype == "f4" else dtype))
        write_image(image / "labels" / "n", labels, "yx", version="0.4", label={})
        list_labels(image, "n", version="0.4")
        site = describe_view(image)
        assert site.notes == ()
        shown.append(read_view(site)["state"]["layers"])
    assert shown[0] == shown[1]
    assert len(shown[0]) == 2


# -- what is doubtful ------------------------------------------------------------------------------------------


def test_labels_of_other_proportions_are_left_out_and_that_is_told(tmp_path):
    image = write_image(tmp_path / "a", noise(40, 50), "yx", scale=[0.5, 0.5])
    write_image(image / "labels" / "n", noise(40, 25) // 200, "yx", units={}, label={})
    list_labels(image, "n")
    site = describe_view(image)
    assert list(layers(site)) == ["image"]
    assert "proportions" in site.notes[0]


@pytest.mark.parametrize(("base", "given"), [((41, 50), (20, 25)), ((41, 51), (21, 25)), ((1003, 777), (125, 97))])
def test_a_pixel_that_a_level_rounds_away_does_not_change_proportions(tmp_path, base, given):
    image = write_image(tmp_path / "a", noise(*base), "yx")
    labels = write_image(tmp_path / "l", noise(*given), "yx", units={})
    assert place_described(describe_image(labels), describe_image(image))[0] is not None


def test_another_image_than_the_one_that_was_segmented_is_told_and_a_copy_is_laid_by_the_record(tmp_path):
    image = write_image(tmp_path / "a", noise(40, 48), "yx", n_levels=2)
    out = output(tmp_path, noise(20, 24) // 200, image=image, level=1, shape=[20, 24], scale=(9.0, 9.0))
    image.rename(tmp_path / "copy")
    site = describe_view(out, image=tmp_path / "copy")
    assert places(site, "segmentation")[0] == [2.0, 2.0]
    assert site.notes == ()
    other = write_image(tmp_path / "b", noise(60, 72), "yx", n_levels=2)
    assert any("not the image that was segmented" in note for note in describe_view(out, image=other).notes)


def with_objects(out: Path, *, rows: int = 4) -> Path:
    """Instances of three objects, and their complete table in parts of a few rows."""
    ids = np.zeros((40, 50), np.uint32)
    ids[:5], ids[10:15], ids[20:25] = 1, 2, 3
    group = out / "labels" / "segmentation-instances"
    write_image(group, ids, "yx", label={})
    record = {"input": {"location": str(out / "labels/segmentation")}, "parameters": {"ndim": 2}, "n_objects": 3}
    store.update_attributes(str(out), "labels/segmentation-instances", {ATTRIBUTE: record})
    list_labels(out, "segmentation", "segmentation-instances")
    table = {"input": {"n_objects": 3}, "parameters": {"rows": rows}}
    store.create_group(str(out), "tables", [], {ATTRIBUTE: {"segmentation-instances": table}})
    folder = out / "tables" / "segmentation-instances.parquet"
    folder.mkdir()
    for number, first in enumerate(range(1, 4, rows)):
        found = np.arange(first, min(first + rows, 4))
        pq.write_table(pa.table({"id": found, "area_px": found * 10}), folder / f"part-{number:05d}.parquet")
    return folder


def infos(site: Site) -> list[dict[str, Any]]:
    return [json.loads(content)["inline"] for path, content in site.files.items() if path.endswith("/info")]


def areas(site: Site) -> list[Any]:
    return [item["values"] for inline in infos(site) for item in inline["properties"] if item["id"] == "area_px"]


def test_a_table_is_shown_if_it_is_complete_and_of_these_objects(tmp_path):
    image = write_image(tmp_path / "a", noise(40, 50), "yx")
    out = output(tmp_path, noise(40, 50) // 200, image=image)
    folder = with_objects(out, rows=1)
    site = describe_view(out)
    assert areas(site) == [[10, 20, 30]]
    assert not any("measurements" in note for note in site.notes)

    (folder / "part-00002.parquet").rename(tmp_path / "kept")
    site = describe_view(out)
    assert areas(site) == []
    assert any("not complete; run: segment-slide measure" in note for note in site.notes)

    (tmp_path / "kept").rename(folder / "part-00002.parquet")
    record = store.read_attributes(str(out), "tables")[ATTRIBUTE]
    record["segmentation-instances"]["input"]["n_objects"] = 4
    store.update_attributes(str(out), "tables", {ATTRIBUTE: record})
    site = describe_view(out)
    assert areas(site) == []
    assert any("earlier numbering; run: segment-slide measure" in note for note in site.notes)


def test_a_damaged_part_or_one_of_another_program_costs_only_its_rows(tmp_path):
    image = write_image(tmp_path / "a", noise(40, 50), "yx")
    out = output(tmp_path, noise(40, 50) // 200, image=image)
    folder = with_objects(out, rows=1)
    (folder / "part-00000.parquet").write_bytes(b"no Parquet")
    pq.write_table(pa.table({"x": [1]}), folder / "part-00002.parquet")
    site = describe_view(out)
    assert areas(site) == [[20]]
    assert any("damaged" in note for note in site.notes)
    assert any("part-00002.parquet is left out" in note for note in site.notes)


def test_rows_are_counted_as_they_are_read(tmp_path, monkeypatch):
    image = write_image(tmp_path / "a", noise(40, 50), "yx")
    out = output(tmp_path, noise(40, 50) // 200, image=image)
    folder = with_objects(out)
    pq.write_table(pa.table({"id": np.arange(1, 12), "area_px": np.arange(11)}), folder / "part-00000.parquet")
    monkeypatch.setattr("segment_slide.pipeline.viewer.object_list.MOST_OBJECTS", 10)
    site = describe_view(out)
    assert areas(site) == []
    assert any("11 objects are left out" in note for note in site.notes)


def test_an_interrupted_segmentation_is_told_and_its_coarse_levels_are_not_shown(tmp_path):
    image = write_image(tmp_path / "a", noise(130, 130), "yx")
    out = write_segmentation(tmp_path / "out.ome.zarr", noise(130, 130) // 200, n_levels=2)
    record = store.read_attributes(str(out), "labels/segmentation")[ATTRIBUTE]
    record["input"] = {"location": str(image), "level": 0, "ranges": {}, "axes": "yx"}
    record["input"]["fingerprint"] = mark_of(image, record["input"])
    store.update_attributes(str(out), "labels/segmentation", {ATTRIBUTE: record})
    whole = describe_view(out)
    assert len(described(whole, "segmentation")["datasets"]) == 2
    assert whole.notes == ()
    (out / "labels/segmentation/1/c/0/0").unlink()
    (out / "labels/segmentation/0/c/1/1").unlink()
    site = describe_view(out)
    assert len(described(site, "segmentation")["datasets"]) == 1
    assert "1 of 9 blocks are not done" in site.notes[0]


def test_objects_that_are_named_alone_lie_over_the_image_of_their_classes(tmp_path):
    image = write_image(tmp_path / "a", noise(40, 50), "yx")
    out = output(tmp_path, noise(40, 50) // 200, image=image)
    with_objects(out)
    for site in (
        describe_view(out, name="segmentation-instances"),
        describe_view(out / "labels" / "segmentation-instances"),
    ):
        assert list(layers(site)) == ["image", "segmentation-instances"]


# -- metadata of other programs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "start", "end"),
    [("uint8", -5, 300), ("int8", -900, 5), ("uint16", 70000, 80000), ("int16", 0, 1 << 20), ("float32", 0, 1e300)],
)
def test_contrast_never_leaves_the_type(tmp_path, dtype, start, end):
    omero = {"channels": [{"window": {"start": start, "end": end, "min": 0, "max": 1}}]}
    site = describe_view(write_image(tmp_path / "a", (noise(1, 40, 50) // 3).astype(dtype), "cyx", omero=omero))
    (layer,) = layers(site).values()
    limits = np.iinfo(dtype) if dtype != "float32" else np.finfo(dtype)
    contrast = layer["shaderControls"]["contrast"]
    for low, high in (contrast["range"], contrast["window"]):
        assert limits.min <= low < high <= limits.max


def test_no_more_channels_are_given_to_a_browser_than_it_can_take_visible_ones_first(tmp_path):
    omero = {"channels": [{"label": f"{i}", "active": i >= 36} for i in range(40)]}
    site = describe_view(write_image(tmp_path / "a", noise(40, 20, 20), "cyx", omero=omero))
    assert len(layers(site)) == 32
    assert [name for name, layer in layers(site).items() if layer["visible"]] == ["36", "37", "38", "39"]
    assert "Of 40 channels 32 are shown" in site.notes[0]


def test_a_photograph_with_opacity_is_a_photograph(tmp_path):
    found = layers(describe_view(write_image(tmp_path / "a", noise(4, 40, 50), "cyx")))
    assert list(found) == ["image", "opacity"]
    assert not found["opacity"]["visible"]
    found = layers(describe_view(write_image(tmp_path / "b", noise(4, 40, 50), "cyx", chunks=(1, 40, 50))))
    assert [layer["visible"] for layer in found.values()] == [True, True, True, False]
    assert [layer["shaderControls"]["color"] for layer in found.values()][:3] == ["#ff0000", "#00ff00", "#0000ff"]


def test_a_damaged_coarse_level_costs_only_the_intensities(tmp_path):
    image = write_image(tmp_path / "a", noise(40, 50).astype(np.uint16), "yx")
    (image / "0" / "c" / "0" / "0").write_bytes(b"nothing")
    site = describe_view(image)
    assert layers(site)["image"]["shaderControls"]["contrast"]["range"] == [0, 65535]
    assert "cannot be read" in site.notes[0]


def test_properties_of_other_programs_get_ids_that_a_query_can_hold():
    table = ObjectTable([1, 2], ["#a b", "a_b"], {"mean area": [1, 2], "mean-area": [3, 4], "class": [5, 6]}, {})
    properties = json.loads(make_info(table))["inline"]["properties"]
    found = {item["id"]: item for item in properties if item["type"] == "number"}
    assert list(found) == ["mean_area", "mean_area_2", "class_2"]
    assert found["mean_area_2"]["description"] == "mean-area"
    assert not any(item["type"] == "tags" for item in properties), "both classes are one tag"


def test_of_label_values_only_those_of_objects_count_and_each_once():
    values = [1, True, 1 << 64, 0, -3, "4", 1, 5]
    items = [{"label-value": value, "n": index} for index, value in enumerate(values)]
    table = read_properties({"properties": items})
    assert table is not None
    assert list(table.ids) == [1, 5]
    assert table.numbers == {"n": [0, 7]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ITEM = st.fixed_dictionaries({}, optional={"label-value": JSON, "rgba": st.lists(JSON, max_size=4), "class": JSON})
LABEL = JSON | st.fixed_dictionaries({}, optional={"colors": JSON | st.lists(ITEM), "properties": st.lists(ITEM)})
WINDOW = st.fixed_dictionaries({}, optional={"start": JSON, "end": JSON})
CHANNEL = st.fixed_dictionaries({}, optional={"label": JSON, "color": JSON, "active": JSON, "window": JSON | WINDOW})
OMERO = JSON | st.fixed_dictionaries({"channels": JSON | st.lists(CHANNEL, min_size=1, max_size=1)})


@given(listed=JSON | st.fixed_dictionaries({"labels": JSON | st.lists(JSON | st.just("n"))}), label=LABEL, omero=OMERO)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_metadata_say_something_is_shown_or_one_sentence_is_said(tmp_path, listed, label, omero):
    image = tmp_path / "a"
    if not image.exists():
        write_image(image, noise(1, 20, 20), "cyx")
        write_image(image / "labels" / "n", noise(20, 20) // 200, "yx")
        list_labels(image, "n")
    for path, changes in (("", {"omero": omero}), ("labels/n", {"image-label": label}), ("labels", listed)):
        file = image / path / "zarr.json"
        content = json.loads(file.read_text())
        ome_content = content["attributes"]["ome"]
        if path == "labels":
            content["attributes"]["ome"] = changes
        else:
            content["attributes"]["ome"] = {**ome_content, **changes}
        file.write_text(json.dumps(content))
    try:
        site = describe_view(image)
    except PipelineError:
        return
    assert read_view(site)["state"]["layers"]


@pytest.mark.parametrize("name", ["../../elsewhere", "a/b", "..", 7])
def test_a_listed_name_that_leads_elsewhere_is_not_followed(tmp_path, name):
    image = write_image(tmp_path / "a", noise(40, 50), "yx")
    list_labels(image, name)
    site = describe_view(image)
    assert list(layers(site)) == ["image"]
    assert repr(name) in site.notes[0]


def test_levels_whose_names_end_an_address_are_quoted(tmp_path):
    image = write_image(tmp_path / "a", noise(40, 50), "yx")
    (image / "0").rename(image / "a#b?c%20")
    file = image / "zarr.json"
    file.write_text(file.read_text().replace('"path": "0"', '"path": "a#b?c%20"'))
    (dataset,) = described(describe_view(image), "image")["datasets"]
    assert dataset["path"] == "../../data/0/a%23b%3Fc%2520"


def test_labels_with_channels_are_told(tmp_path):
    image = write_image(tmp_path / "a", noise(40, 50), "yx")
    write_image(image / "labels" / "n", noise(2, 40, 50) // 200, "cyx", label={})
    list_labels(image, "n")
    assert any("2 channels, of which the first" in note for note in describe_view(image).notes)


def test_a_page_of_another_form_is_refused_instead_of_shown_empty(monkeypatch):
    monkeypatch.setattr("segment_slide.pipeline.viewer.page._TITLE", "<title>another</title>")
    with pytest.raises(PipelineError, match="install the version"):
        make_page("slide", is_volume=False)
