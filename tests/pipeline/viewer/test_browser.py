"""What a person sees: the screen's pixels are the arrays', the ids under the mouse too, and nothing else is loaded.

Each check is a function that is also run on a site that was broken on purpose, and has to fail there.
"""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import zarr

from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.viewer.describe import describe_view
from segment_slide.pipeline.viewer.site import Site
from tests.flows.support import DATA
from tests.pipeline.viewer.support import Screen, change_layer, list_labels, opened, read_view, write_image

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

LARGE = (1 << 33) + 5  # an id that takes more than 32 bits
GREEN, MAGENTA, BLUE, YELLOW = "00FF00", "FF00FF", "0000FF", "FFFF00"
PLACES = [(100, 120), (90, 110), (101, 99), (70, 70), (140, 150)]  # y, x, around the middle of a slide of 200 x 240


def noise(*shape: int, high: int = 255, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def squares(dtype: Any = np.uint64) -> np.ndarray:
    labels = np.zeros((200, 240), dtype)
    labels[80:96, 90:115], labels[96:120, 100:160], labels[60:75, 60:80] = 7, min(LARGE, np.iinfo(dtype).max - 1), 12
    return labels


def describe_channels(*colours: str, end: int) -> dict[str, Any]:
    window = {"min": 0, "max": 65535, "start": 0, "end": end}
    return {"channels": [{"label": f"stain {c}", "color": c, "window": window} for c in colours]}


def slide(
    path: Path, pixels: np.ndarray, labels: np.ndarray | None = None, *, version: str = "0.5", **more: Any
) -> Site:
    """An image of pixels of half a micrometre, with labels that another tool might have written."""
    more.setdefault("scale", [0.5 if axis in "yx" else 1.0 for axis in "cyx"])
    write_image(path, pixels, "cyx", version=version, **more)
    if labels is not None:
        write_image(path / "labels" / "cells", labels, "yx", scale=[0.5, 0.5], version=version, label={})
        list_labels(path, "cells", version=version)
    return describe_view(path)


def check_rgb(screen: Screen, pixels: np.ndarray) -> None:
    """Five pixels of the screen are the photograph's, as they are stored."""
    screen.look([120, 100], 0.25)
    shown = [screen.pixel(y, x) for y, x in PLACES]
    assert shown == [pixels[:, y, x].tolist() for y, x in PLACES], "other colours"


def check_mixed(screen: Screen, pixels: np.ndarray, colours: list[str], end: int) -> None:
    """Five pixels of the screen are the sum of the channels' colours."""
    screen.look([120, 100], 0.25)
    mixed = np.array([list(bytes.fromhex(colour)) for colour in colours])
    for y, x in PLACES:
        expected = np.minimum((np.clip(pixels[:, y, x] / end, 0, 1)[:, None] * mixed).sum(axis=0), 255)
        assert np.abs(np.array(screen.pixel(y, x)) - expected).max() <= 2, (y, x)


def check_ids(screen: Screen, labels: np.ndarray) -> None:
    """The object under the mouse is the array's."""
    screen.look([120, 100], 0.25)
    for y, x in [(90, 100), (110, 130), (70, 62), (95, 114), (96, 115), (79, 100), (130, 90)]:
        assert screen.id_under_mouse(y, x, "cells") == labels[y, x], f"another object at {y}, {x}"


def check_outline(screen: Screen, labels: np.ndarray) -> None:
    """Switching the labels on changes each labelled pixel of the screen, and no other."""
    screen.run("() => viewer.state.restoreState({showScaleBar: false})")
    screen.look([120, 100], 0.25)
    screen.page.mouse.move(5, 5)  # an object under the mouse is drawn brighter
    shots = []
    for is_visible in (False, True):
        screen.show(cells=is_visible)
        shots.append(screen.grab())
    differs = (shots[0] != shots[1]).any(axis=-1)
    left, top, width, height = screen.panel
    rows, columns = np.arange(top + 30, top + height - 30), np.arange(left + 80, left + width - 80)  # without buttons
    middle_y, middle_x = screen.place(100, 120)
    y, x = 100 + (rows + 0.5 - middle_y) * 0.25, 120 + (columns + 0.5 - middle_x) * 0.25
    rows, y = (values[np.abs(y % 1 - 0.5) > 0.05] for values in (rows, y))  # not where two array pixels meet
    columns, x = (values[np.abs(x % 1 - 0.5) > 0.05] for values in (columns, x))
    y, x = np.rint(y).astype(int), np.rint(x).astype(int)
    inside = ((y >= 0) & (y < 200))[:, None] & (x >= 0) & (x < 240)
    expected = inside & (labels[np.clip(y, 0, 199)[:, None], np.clip(x, 0, 239)] != 0)
    assert expected.any()
    found = differs[np.ix_(rows.astype(int), columns.astype(int))]
    assert found.any(), "no labels at all"
    assert (found == expected).all(), "labels elsewhere"


def chunks_of(screen: Screen, level: int) -> set[str]:
    """Files of pixels that were asked for of a level of the image."""
    return {path for path in screen.served if f"/data/0/{level}/c/" in path}


def check_little_is_read(screen: Screen, n_chunks: int) -> None:
    """The overview needs no pixel of the finest level, one place of it few."""
    assert any(chunks_of(screen, level) for level in (2, 3, 4, 5)), "something is shown"
    assert not chunks_of(screen, 0), "pixels of the finest level"
    screen.look([9000, 5000], 1.0)
    assert 0 < len(chunks_of(screen, 0)) < n_chunks / 10


# -- pixels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_photograph_with_labels_is_shown_as_it_is_stored(browser: Any, tmp_path: Path, version: str) -> None:
    pixels, labels = noise(3, 200, 240), squares()
    site = slide(tmp_path / "slide.zarr", pixels, labels, version=version)
    with opened(browser, site) as screen:
        screen.show(cells=False)
        check_rgb(screen, pixels)
        screen.show(cells=True)
        check_ids(screen, labels)
        check_outline(screen, labels)


def test_types_that_the_client_refuses_are_shown_by_value(browser: Any, tmp_path: Path) -> None:
    pixels, labels = noise(1, 200, 240, high=1000).astype(np.float64), squares(np.int64)
    pixels[:, 120:, :20] = np.nan
    site = slide(tmp_path / "slide.zarr", pixels, labels)
    low, high = read_view(site)["state"]["layers"][0]["shaderControls"]["contrast"]["range"]
    with opened(browser, site) as screen:
        screen.show(cells=False)
        screen.look([120, 100], 0.25)
        for y, x in PLACES:
            grey = np.clip((pixels[0, y, x] - low) / (high - low), 0, 1) * 255
            assert np.abs(np.array(screen.pixel(y, x)) - grey).max() <= 2, (y, x)
        screen.show(cells=True)
        check_ids(screen, labels)
        check_outline(screen, labels)


def test_a_photograph_whose_channel_axis_has_another_name_would_be_noticed(browser: Any, tmp_path: Path) -> None:
    pixels = noise(3, 200, 240)
    site = slide(tmp_path / "slide.zarr", pixels)

    def rename(multiscale: dict[str, Any]) -> None:
        multiscale["axes"][0] = {"name": "c", "type": "channel"}

    with (
        opened(browser, change_layer(site, "image", rename)) as screen,
        pytest.raises(AssertionError, match="other colours"),
    ):
        check_rgb(screen, pixels)


def test_ids_that_are_off_by_one_and_labels_that_are_shifted_would_be_noticed(browser: Any, tmp_path: Path) -> None:
    pixels, labels = noise(3, 200, 240), squares()
    site = slide(tmp_path / "slide.zarr", pixels, labels)

    def shift(multiscale: dict[str, Any]) -> None:
        for dataset in multiscale["datasets"]:
            dataset["coordinateTransformations"][1]["translation"][1] += 0.5  # one pixel

    with (
        opened(browser, change_layer(site, "cells", shift)) as screen,
        pytest.raises(AssertionError, match="labels elsewhere"),
    ):
        check_outline(screen, labels)

    array = zarr.open_array(tmp_path / "slide.zarr" / "labels" / "cells" / "0", mode="r+")
    array[...] = labels + (labels != 0).astype(np.uint64)
    with opened(browser, site) as screen:
        check_outline(screen, labels)
        with pytest.raises(AssertionError, match="another object"):
            check_ids(screen, labels)


def test_four_channels_of_16_bits_are_mixed_in_their_colours(browser: Any, tmp_path: Path) -> None:
    colours, end = [GREEN, MAGENTA, BLUE, YELLOW], 5000
    pixels = noise(4, 200, 240, high=2000, dtype=np.uint16)
    omero = describe_channels(*colours, end=end)
    site = slide(tmp_path / "slide.zarr", pixels, omero=omero, chunks=(1, 64, 64))
    with opened(browser, site) as screen:
        assert [layer["name"] for layer in screen.state["layers"]] == [f"stain {colour}" for colour in colours]
        check_mixed(screen, pixels, colours, end)


def test_real_numbers_span_their_percentiles_and_what_is_not_finite_is_black(browser: Any, tmp_path: Path) -> None:
    pixels = noise(1, 200, 240).astype(np.float32) / 255
    pixels[0, 90, 110], pixels[0, 101, 99] = np.nan, np.inf
    site = slide(tmp_path / "slide.zarr", pixels)
    (shown,) = [layer["shaderControls"]["contrast"]["range"] for layer in read_view(site)["state"]["layers"]]
    with opened(browser, site) as screen:
        screen.look([120, 100], 0.25)
        assert screen.pixel(90, 110) == screen.pixel(101, 99) == [0, 0, 0]
        for y, x in [(100, 120), (70, 70), (140, 150)]:
            grey = 255 * np.clip((pixels[0, y, x] - shown[0]) / (shown[1] - shown[0]), 0, 1)
            assert np.abs(np.array(screen.pixel(y, x)) - grey).max() <= 2


def test_a_volume_is_shown_at_the_plane_that_the_view_says(browser: Any, tmp_path: Path) -> None:
    pixels = noise(24, 40, 50)
    labels = np.zeros((24, 40, 50), np.uint32)
    labels[8:16, 10:20, 12:30] = 3
    path = write_image(tmp_path / "v.zarr", pixels, "zyx", scale=[2.0, 0.5, 0.5])
    write_image(path / "labels" / "cells", labels, "zyx", scale=[2000.0, 500.0, 500.0], label={},
                units=dict.fromkeys("zyx", "nanometer"))  # fmt: skip
    list_labels(path, "cells")
    site = describe_view(path)
    (low, high) = read_view(site)["state"]["layers"][0]["shaderControls"]["contrast"]["range"]
    with opened(browser, site) as screen:
        assert screen.state["layout"] == "4panel-alt"
        screen.run("() => viewer.state.restoreState({layout: 'xy'})")
        for z in (12, 5):
            screen.look([25, 20, z], 0.125)
            for y, x in [(15, 20), (12, 14), (5, 33), (19, 29), (30, 25)]:
                assert screen.id_under_mouse(y, x, "cells") == labels[z, y, x]
            screen.show(cells=False)
            for y, x in [(15, 20), (12, 14), (5, 33), (19, 29), (30, 25)]:
                grey = 255 * np.clip((pixels[z, y, x] - low) / (high - low), 0, 1)
                assert np.abs(np.array(screen.pixel(y, x)) - grey).max() <= 2
            screen.show(cells=True)


def test_an_image_of_the_ome_team_is_shown_with_its_labels(browser: Any) -> None:
    path = DATA / "ome_zarr" / "tubhiswt4D_sub.zarr"
    if not path.exists():
        pytest.skip(f"{path} is not there: set SEGMENT_SLIDE_DATA")
    site = describe_view(path)
    (name,) = [layer["name"] for layer in read_view(site)["state"]["layers"] if layer["type"] == "segmentation"]
    labels = describe_image(path / "labels" / name)
    pixels = np.asarray(describe_image(path).array())
    values = np.asarray(labels.array()).reshape(-1, *pixels.shape[2:])
    low, high = read_view(site)["state"]["layers"][0]["shaderControls"]["contrast"]["range"]
    with opened(browser, site) as screen:
        t, z = int(screen.state["position"][3]), int(screen.state["position"][2])
        screen.run("() => viewer.state.restoreState({layout: 'xy'})")
        screen.look([256, 256, z, t], 0.5)
        for y, x in [(256, 256), (200, 300), (300, 200), (130, 300), (250, 330)]:
            assert screen.id_under_mouse(y, x, name) == values[0, z, y, x]
        screen.show(**{name: False})
        for y, x in [(256, 256), (200, 300), (300, 200), (130, 300), (250, 330)]:
            grey = 255 * np.clip((pixels[t, 0, z, y, x] - low) / (high - low), 0, 1)
            assert np.abs(np.array(screen.pixel(y, x)) - grey).max() <= 2


# -- what is loaded ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 16384 x 16384 pixels, each chunk of one value, so that it takes no time to write."""
    path = tmp_path_factory.mktemp("large") / "slide.zarr"
    pixels = np.broadcast_to(np.uint8(90), (16384, 16384))
    return write_image(path, pixels, "yx", chunks=(512, 512), scale=[0.25, 0.25], n_levels=6)


def test_an_overview_reads_no_pixel_of_the_finest_level(browser: Any, large: Path) -> None:
    with opened(browser, describe_view(large)) as screen:
        check_little_is_read(screen, 32 * 32)
        served = urlsplit(screen.url)
        others = {url for url in screen.requests if not url.startswith(("data:", "blob:"))}
        assert {(urlsplit(url).hostname, urlsplit(url).port) for url in others} == {(served.hostname, served.port)}
        assert all(urlsplit(url).path.startswith(served.path) for url in others)


def test_a_pyramid_whose_coarse_levels_are_not_listed_would_be_noticed(browser: Any, large: Path) -> None:
    def forget(multiscale: dict[str, Any]) -> None:
        del multiscale["datasets"][1:]

    site = change_layer(describe_view(large), "image", forget)
    with opened(browser, site) as screen:
        assert chunks_of(screen, 0), "it does show something"
        with pytest.raises(AssertionError, match="something is shown|pixels of the finest level"):
            check_little_is_read(screen, 32 * 32)


def test_the_page_itself_cannot_load_from_elsewhere(browser: Any, tmp_path: Path) -> None:
    with opened(browser, slide(tmp_path / "slide.zarr", noise(3, 200, 240))) as screen:
        before = len(screen.requests)
        script = "url => fetch(url).then(() => 'loaded', () => 'refused')"
        assert screen.run(script, "http://127.0.0.2:9/elsewhere") == "refused"
        assert screen.run(script, f"{screen.url}view.js") == "loaded"
        refused = """() => new Promise(done => {
            const image = new Image(); image.onerror = () => done(1); image.src = 'http://127.0.0.2:9/'; })"""
        assert screen.run(refused) == 1
        asked = [url for url in screen.requests[before:] if "127.0.0.2" in url]
        assert [(url, "csp") for url in asked] == [pair for pair in screen.refused if "127.0.0.2" in pair[0]]


# -- use -----------------------------------------------------------------------------------------------------


def test_the_whole_slide_is_in_view_the_wheel_zooms_and_a_view_outlives_a_reload(browser: Any, tmp_path: Path) -> None:
    site = slide(tmp_path / "slide.zarr", noise(3, 200, 240), squares())
    with opened(browser, site) as screen:
        left, top, width, height = screen.panel
        for y, x in [(0, 0), (199, 239)]:
            row, column = screen.place(y, x)
            assert top < row < top + height
            assert left < column < left + width
        before = screen.state
        assert "Connecting" not in screen.page.inner_text("body")
        row, column = screen.place(70, 65)
        assert screen.id_under_mouse(70, 65, "cells") == 12
        screen.page.mouse.wheel(0, -100)
        screen.wait_until(f"viewer.crossSectionScale.value < {0.9 * before['crossSectionScale']}")
        screen.settle()
        after = screen.state
        enlarged = before["crossSectionScale"] / after["crossSectionScale"]  # and with it, the mouse's whole pixels
        assert np.allclose(screen.place(70, 65), (row, column), atol=1.5 * enlarged), "what is under the mouse stays"
        scale = after["crossSectionScale"]  # the address follows the view at most twice in a second
        screen.wait_until(
            f"Math.abs(JSON.parse(decodeURIComponent(location.hash.slice(2))).crossSectionScale / {scale} - 1) < 1e-9"
        )
        screen.page.reload()
        screen.settle()
        assert screen.state == after
        assert "Connecting" not in screen.page.inner_text("body")


def test_there_is_a_scale_bar_in_known_units_and_in_pixels_otherwise(browser: Any, tmp_path: Path) -> None:
    for units, expected in (({"y": "micrometer", "x": "micrometer"}, "µm"), ({}, "px")):
        folder = tmp_path / expected
        folder.mkdir()
        site = slide(folder / "slide.zarr", noise(3, 200, 240), units=units)
        with opened(browser, site) as screen:
            bar = screen.grab()
            screen.look([120, 100], 0.2)
            assert (screen.grab() != bar).any()
            assert screen.run("() => drawnTexts.at(-1)").endswith(expected)


def test_what_is_known_of_an_object_is_there_and_can_be_searched(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "slide.zarr"
    labels = squares(np.uint32)
    write_image(path, noise(3, 200, 240), "cyx", scale=[1, 0.5, 0.5])
    described = [
        {"label-value": 7, "class": "tumour", "area": 100.5},
        {"label-value": 12, "class": "stroma", "area": 75},
    ]
    write_image(path / "labels" / "cells", labels, "yx", scale=[0.5, 0.5], label={"properties": described})
    list_labels(path, "cells")
    with opened(browser, describe_view(path)) as screen:
        screen.page.get_by_text("tumour").first.wait_for()
        screen.page.get_by_text("stroma").first.wait_for()
        screen.page.locator("input.neuroglancer-segment-list-query").fill("area>90 |area")
        screen.wait_until("![...document.querySelectorAll('.neuroglancer-segment-list-entry')].some("
                          "e => e.textContent.includes('stroma'))")  # fmt: skip
        screen.page.get_by_text("100.5").first.wait_for()


def test_planes_of_unknown_distance_neither_change_the_zoom_nor_get_a_scale_bar(browser: Any, tmp_path: Path) -> None:
    """Pixels of 10 um beside planes without a unit: 1.0 of nothing is not the smaller of the two."""
    units = {"y": "micrometer", "x": "micrometer"}
    path = write_image(tmp_path / "slide.zarr", noise(3, 200, 240), "zyx", scale=[1.0, 10.0, 10.0], units=units)
    with opened(browser, describe_view(path)) as screen:
        left, top, width, height = screen.panel
        (upper, first), (lower, last) = screen.place(0, 0), screen.place(199, 239)
        assert max((lower - upper) / height, (last - first) / width) > 0.8, "the specimen fills the panel"
        assert top < upper < lower < top + height
        assert left < first < last < left + width
        texts = screen.run("() => drawnTexts")
        assert texts
        assert all(text.endswith("m") for text in texts), texts


def test_a_view_that_was_kept_from_another_address_reads_the_files_of_this_page(browser: Any, tmp_path: Path) -> None:
    with opened(browser, slide(tmp_path / "slide.zarr", noise(3, 200, 240))) as screen:
        state = screen.run("() => decodeURIComponent(location.hash.slice(2))")
        kept = state.replace(screen.url, "http://127.0.0.1:9/v/of-another-day/")
        assert kept != state
        screen.page.evaluate("text => { location.hash = '!' + encodeURIComponent(text); location.reload(); }", kept)
        screen.page.wait_for_load_state()
        screen.settle()
        assert screen.url in screen.state["layers"][0]["source"]
