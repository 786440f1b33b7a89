"""What is shown of a store, decided without a browser: layers, places, looks, and what is left out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pipeline import ome, store
from pipeline.errors import InputError
from pipeline.image import describe_image
from pipeline.record import ATTRIBUTE
from pipeline.view import describe_view
from pipeline.view_layers import unsupported_codecs
from pipeline.view_place import place_described
from pipeline.view_site import Site, client_files
from pipeline.view_table import ObjectTable, make_info
from tests.flows.support import noise, write_array, write_segmentation
from tests.view.support import layer_file, list_labels, read_view, write_image

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
    assert "--image" in site.notes[0]
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
        ([1.0, 1.0], [0.0, 0.0], None, ([0.5, 0.5], [0.0, 0.0])),
        ([3.0, 3.0], [0.0, 0.0], "micrometer", ([0.5, 0.5], [0.0, 0.0])),
        ([0.5, 0.5], [0.5, 0.0], "micrometer", ([0.5, 0.5], [0.5, 0.0])),
    ],
    ids=["same", "nanometres", "no unit", "contradiction", "shifted by a pixel"],
)
def test_labels_lie_by_their_metadata_or_by_pixels_where_these_contradict(tmp_path, scale, start, unit, expected):
    image = write_image(tmp_path / "a", noise(40, 50), "yx", scale=[0.5, 0.5])
    units = {"y": unit, "x": unit}
    write_image(image / "labels" / "n", noise(40, 50) // 200, "yx", scale=scale, start=start, units=units, label={})
    list_labels(image, "n")
    assert places(describe_view(image), "n") == expected


def test_half_sized_labels_without_units_cover_the_whole_image(tmp_path):
    image = write_image(tmp_path / "a", noise(40, 50), "yx", scale=[0.5, 0.5])
    labels = write_image(tmp_path / "l", noise(20, 25), "yx", units={})
    placed = place_described(describe_image(labels), describe_image(image))
    assert placed.step == {"y": 2.0, "x": 2.0}
    assert placed.start == {"y": 0.5, "x": 0.5}, "the centre of the first of two pixels"


def test_pixels_of_unknown_size_are_counted_and_labels_that_know_it_tell_it(tmp_path):
    image = write_image(tmp_path / "a", noise(40, 50), "yx", units={})
    assert read_view(describe_view(image))["state"]["dimensions"] == {"x": [1.0, ""], "y": [1.0, ""]}
    write_image(image / "labels" / "n", noise(40, 50) // 200, "yx", scale=[0.25, 0.25], label={})
    list_labels(image, "n")
    assert read_view(describe_view(image))["state"]["dimensions"] == {"x": [0.25, "um"], "y": [0.25, "um"]}


@pytest.mark.parametrize("dtype", ["int64", "float64", "float16", "bool"])
def test_a_type_that_the_viewer_refuses_is_left_out_and_alone_refused(tmp_path, dtype):
    write_image(tmp_path / "a", noise(40, 50).astype(dtype), "yx")
    with pytest.raises(InputError, match=dtype):
        describe_view(tmp_path / "a")
    write_image(tmp_path / "a" / "labels" / "n", noise(40, 50) // 200, "yx", label={})
    list_labels(tmp_path / "a", "n")
    site = describe_view(tmp_path / "a")
    assert list(layers(site)) == ["n"]
    assert dtype in site.notes[0]


def test_a_compression_that_the_viewer_cannot_decode_is_told(tmp_path):
    image = write_image(tmp_path / "a", noise(40, 50), "yx", version="0.4")
    metadata = json.loads((image / "0" / ".zarray").read_text())
    (image / "0" / ".zarray").write_text(json.dumps({**metadata, "compressor": {"id": "lz4", "acceleration": 1}}))
    with pytest.raises(InputError, match="lz4"):
        describe_view(image)


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
