"""The report of a segmentation: its numbers and pictures are those of the arrays, and it needs nothing but itself."""

import itertools
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas
import pytest

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.errors import InputError, OutputError
from segment_slide.pipeline.measurement.options import ImageChoice
from segment_slide.pipeline.measurement.picture import number
from segment_slide.pipeline.measurement.plan import begin
from segment_slide.pipeline.measurement.run import measure_blocks, write_table
from segment_slide.pipeline.report.estimate import estimate_areas
from segment_slide.pipeline.report.facts import choose_name, gather
from segment_slide.pipeline.report.html import tag, trusted
from segment_slide.pipeline.report.pictures import Mark, View, colour_of_object, draw_view
from segment_slide.pipeline.report.places import CountMap, around, densest, typical
from segment_slide.pipeline.report.run import make_report, write_report
from segment_slide.pipeline.report.table import describe_table
from segment_slide.pipeline.report.target import report_path
from segment_slide.pipeline.report.times import file_spans
from segment_slide.pipeline.report.views import look
from segment_slide.pipeline.storage import ome, store
from segment_slide.pipeline.storage.pyramid import build_pyramid
from segment_slide.pipeline.storage.record import ATTRIBUTE
from tests.flows.support import mark_of, noise, tree, write_group, write_ome, write_segmentation
from tests.pipeline.measurement.support import CLASSES, NAME, NO_IMAGE, draw_objects, measure, plan_of, write_store
from tests.pipeline.report.support import decode, outside_links, parse, pixels_of

SHAPE = (90, 130)
ORANGE, GREEN = (230, 159, 0), (0, 158, 115)


@pytest.fixture
def ids():
    return draw_objects(SHAPE)


@pytest.fixture(scope="module")
def measured_once(tmp_path_factory):
    """A folder with an output of image, classes, ids and a table in several parts."""
    folder = tmp_path_factory.mktemp("measured")
    image = np.stack([noise(*SHAPE), noise(*SHAPE, seed=2)]).astype(np.float32)
    location = write_store(
        folder,
        draw_objects(SHAPE),
        (32, 32),
        image=image,
        image_axes="cyx",
        channels=("DAPI", "GFP 2"),
        scale=(0.5, 0.5),
    )
    measure(location, rows=7)
    return Path(location)


@pytest.fixture
def measured(measured_once, tmp_path):
    """A copy of it, whose records lead to the copy of its image."""
    shutil.copytree(measured_once.parent, tmp_path, dirs_exist_ok=True)
    for record in tmp_path.rglob("zarr.json"):
        record.write_text(record.read_text().replace(str(measured_once.parent), str(tmp_path)))
    return str(tmp_path / measured_once.name)


@pytest.fixture(scope="module")
def page(measured_once):
    """Its report."""
    return make_report(str(measured_once), NAME)


def table_of(location):
    return pandas.read_parquet(f"{location}/tables/{NAME}-instances.parquet")


# -- numbers -------------------------------------------------------------------------------------------------------


def test_its_numbers_are_those_of_the_arrays(page, measured, ids):
    text = parse(page).text
    sizes = np.bincount(ids.ravel())[1:]
    mm2 = ids.size * 0.25 / 1e6
    area = f"{number(ids.size * 0.25)} µm² of image, glass included"
    assert f"{len(sizes):,} objects in {area}: {number(len(sizes) / mm2)} per mm²" in text
    assert f"They cover {(ids > 0).mean():.1%} of it" in text
    assert f"median area is {number(np.median(sizes) * 0.25)} µm²" in text
    table = table_of(measured)
    for name, rows in table.groupby("class_name", observed=True):
        low, median, high = (number(q * 0.25) for q in np.quantile(rows["area_px"], (0.25, 0.5, 0.75)))
        assert f"{name} {len(rows):,} {number(len(rows) / mm2)} " in text
        assert f"{median} {low} – {high} {rows['touches_image_border'].sum()}" in text
    means = table.groupby("class_name", observed=True)[["intensity_mean_DAPI", "intensity_mean_GFP_2"]].mean()
    for name, row in means.iterrows():
        assert f"{name} {number(row.iloc[0])} {number(row.iloc[1])}" in text


def test_small_objects_are_said_with_the_command_that_drops_them(tmp_path):
    ids = np.zeros((60, 70), np.uint32)
    ids[5:25, 5:25], ids[30:50, 30:50] = 1, 2
    ids[2, 60], ids[40, 3], ids[55, 55:57] = 3, 4, 5
    location = write_store(tmp_path, ids, (32, 32), image=noise(60, 70))
    measure(location)
    text = parse(make_report(location, NAME)).text
    assert "3 of 5 objects (60.0%) are smaller than 40 px" in text
    assert "--min-size=40px" in text


def test_a_table_in_many_parts_says_what_the_whole_table_says(measured, ids):
    facts = gather(measured, NAME)
    assert facts.table.n_parts > 3
    found = describe_table(facts, {"t": 0, "z": 0}, 512)
    table = table_of(measured)
    assert found.summary.all.n_objects == len(table)
    bin_px = found.places.bin_px
    y, x = (table[f"centroid_{axis}_px"].to_numpy() + 0.5 for axis in "yx")
    bins = [np.arange(n + 1) * bin_px for n in found.places.counts.shape]
    assert (found.places.counts == np.histogram2d(y, x, bins)[0]).all()
    assert found.places.counts.sum() == len(table) > 10
    for intensities, name in zip(found.intensities, ("DAPI", "GFP_2"), strict=True):
        values = table[f"intensity_mean_{name}"]
        assert intensities.channel == name
        assert (intensities.edges[0], intensities.edges[-1]) == (values.min(), values.max())
        for row, value in enumerate(sorted(table["class"].unique())):
            expected = np.histogram(values[table["class"] == value], intensities.edges)[0]
            assert (intensities.counts[row] == expected).all()
        assert intensities.counts.sum() == len(table)


def test_densities_of_bins_count_the_pixels_that_lie_in_the_image():
    counts = np.arange(35).reshape(5, 7)
    found = CountMap(counts, 3, (13, 20)).per_px(3)
    whole = np.zeros((15, 21))
    whole[::3, ::3] = counts
    step = 9
    for i, j in np.ndindex(found.shape):
        rows, columns = slice(i * step, (i + 1) * step), slice(j * step, (j + 1) * step)
        n_px = np.ones((13, 20))[rows, columns].sum()
        assert found[i, j] == pytest.approx(whole[rows, columns].sum() / n_px)


def test_a_volumes_objects_are_counted_in_each_plane_that_they_reach(tmp_path):
    ids = draw_objects((11, 40, 50), sigma=1.5)
    location = write_store(tmp_path, ids, (11, 32, 32), axes="zyx", ndim=3, scale=(1.0, 0.5, 0.5))
    measure(location, NO_IMAGE, rows=5)
    found = describe_table(gather(location, NAME), {"t": 0, "z": 5}, 512)
    expected = [len(np.unique(plane[plane > 0])) for plane in ids]
    assert found.per_plane.tolist() == expected
    assert len(set(expected)) > 2, "planes differ"
    assert found.shown.counts.sum() == expected[5] < found.places.counts.sum()
    text = parse(make_report(location, NAME)).text
    assert "Pictures show z = 5 of 0–10" in text
    assert "Objects per plane" in text


def test_objects_of_time_points_are_counted_at_each(tmp_path):
    ids = np.stack([draw_objects((40, 50), seed=seed) for seed in range(3)])
    for earlier, later in itertools.pairwise(ids):
        later[later > 0] += earlier.max()
    location = write_store(tmp_path, ids, (1, 32, 32), axes="tyx")
    measure(location, NO_IMAGE)
    found = describe_table(gather(location, NAME), {"t": 0, "z": 0}, 512)
    expected = [len(np.unique(plane[plane > 0])) for plane in ids]
    assert found.per_plane.tolist() == expected
    assert found.shown.counts.sum() == expected[0]
    assert "t = 0 of 0–2" in parse(make_report(location, NAME)).text


def test_without_a_table_areas_are_counted_and_the_command_that_measures_is_named(tmp_path):
    classes = (noise(70, 80) > 200).astype(np.uint8)
    location = str(write_segmentation(tmp_path / "out.ome.zarr", classes))
    page = parse(make_report(location, "segmentation"))
    assert f"cell {classes.mean():.2%}" in page.text
    assert "Counted in all pixels" in page.text
    assert f"segment-slide instances {location}" in page.text
    assert f"segment-slide measure {location}" in page.text


def test_areas_of_a_large_slide_are_estimated_on_a_level_that_is_small_enough(tmp_path, monkeypatch):
    monkeypatch.setattr("segment_slide.pipeline.report.estimate._MOST_PX", 40 * 40)
    classes = (noise(150, 150) > 200).astype(np.uint8)
    location = str(write_segmentation(tmp_path / "out.ome.zarr", classes, n_levels=4))
    found = estimate_areas(gather(location, "segmentation"), {"t": 0, "z": 0}, 512)
    stored = np.asarray(store.open_array(location, "labels/segmentation/2")[...])
    assert found.shares == {1: pytest.approx(stored.mean())}
    assert (found.is_exact, found.step) == (False, pytest.approx(4))
    assert found.shown.counts.sum() == stored.sum()
    assert "Estimated" in parse(make_report(location, "segmentation")).text


# -- places --------------------------------------------------------------------------------------------------------


def windows(found, side):
    rows, columns = found.counts.shape
    return {
        (y, x): int(found.counts[y : y + side, x : x + side].sum())
        for y, x in np.ndindex(rows - side + 1, columns - side + 1)
    }


def test_the_densest_and_a_usual_place_are_those_of_a_search_through_all(tmp_path):
    random = np.random.default_rng(3)
    for _ in range(20):
        counts = random.poisson(0.3, (9, 12))
        found = CountMap(counts, 10, (90, 120))
        sums = windows(found, 3)
        best, usual = densest(found, 30), typical(found, 30)
        at = {name: (int(f["y"][0]) // 10, int(f["x"][0]) // 10) for name, f in (("best", best), ("usual", usual))}
        assert sums[at["best"]] == max(sums.values())
        held = sorted(total for total in sums.values() if total)
        assert sums[at["usual"]] == held[(len(held) - 1) // 2]
        assert best["y"][1] - best["y"][0] == best["x"][1] - best["x"][0] == 30


def test_places_lie_in_the_image_and_are_none_where_nothing_is():
    found = CountMap(np.zeros((3, 3), int), 10, (25, 30))
    assert densest(found, 20) is None
    assert typical(found, 20) is None
    found.counts[2, 2] = 1
    assert densest(found, 20) == {"y": (5.0, 25.0), "x": (10.0, 30.0)}
    assert densest(found, 500) == {"y": (0.0, 25.0), "x": (0.0, 30.0)}
    assert around({"y": (5.0, 6.0), "x": (29.0, 30.0)}, 10, (25, 30)) == {"y": (0.0, 10.0), "x": (20.0, 30.0)}


# -- pictures ------------------------------------------------------------------------------------------------------


def squares(tmp_path, shape=(256, 256), n_levels=1):
    """Two large objects of two classes in a grey image."""
    ids = np.zeros(shape, np.uint32)
    ids[20:110, 30:120], ids[130:230, 140:240] = 1, 2
    image = np.where(ids > 0, 200, 20).astype(np.uint8)
    location = write_store(tmp_path, ids, (64, 64), image=image, scale=(0.5, 0.5), classes=ids.astype(np.uint8))
    return location, ids


def is_near(pixels, colour, tolerance=14):
    return (np.abs(pixels - np.array(colour)) <= tolerance).all(axis=-1)


def test_pictures_have_the_arrays_colours_at_the_arrays_places(tmp_path):
    location, ids = squares(tmp_path)
    measure(location)
    sources = parse(make_report(location, NAME)).images
    plain, by_class, _, by_object = (pixels_of(source) for source in sources)
    step = len(plain) / len(ids)

    def at(pixels, y, x):
        return pixels[int(y * step), int(x * step)]

    assert is_near(at(plain, 60, 70), (255, 255, 255))
    assert is_near(at(plain, 5, 5), (0, 0, 0))
    for y, x, value, colour in ((60, 70, 1, ORANGE), (180, 190, 2, GREEN)):
        assert is_near(at(by_class, y, x), 0.72 * 255 + 0.28 * np.array(colour))
        assert is_near(at(by_object, y, x), 0.72 * 255 + 0.28 * np.array(colour_of_object(value)))
    assert is_near(at(by_class, 5, 5), (0, 0, 0)), "background has no colour"
    assert not is_near(at(by_class, 180, 190), at(by_class, 60, 70)), "control: classes differ"


def test_a_mark_lies_around_the_place_that_it_names(tmp_path):
    location, _ = squares(tmp_path)
    sight = look(gather(location, NAME))
    frame = {"y": (0.0, 256.0), "x": (0.0, 256.0)}
    mark = Mark("A", {"y": (64.0, 128.0), "x": (128.0, 192.0)})
    with_mark, without = (
        decode(draw_view(view).plain[1])
        for view in (View(sight.image, sight.classes, sight.colours, frame, 512, marks) for marks in ([mark], []))
    )
    changed = np.argwhere(np.abs(with_mark - without).max(axis=-1) > 60)
    changed = changed[changed[:, 0] > 128 - 4]  # below the letter
    assert np.abs(changed.min(axis=0) - [128, 256]).max() <= 3
    assert np.abs(changed.max(axis=0) - [255, 383]).max() <= 3


def test_successive_objects_have_unlike_colours():
    colours = np.array([colour_of_object(value) for value in range(1, 500)])
    assert np.abs(np.diff(colours, axis=0)).max(axis=1).min() > 100


@pytest.fixture
def count_reads(monkeypatch):
    """Chunks read, per group and array."""
    counts = Counter()
    get = store.CheckedStore.get

    async def counting(self, key, *args, **kwargs):
        if "/c/" in key:
            counts[f"{self._store.root.name}/{key.split('/c/')[0]}"] += 1
        return await get(self, key, *args, **kwargs)

    monkeypatch.setattr(store.CheckedStore, "get", counting)
    return counts


def write_large(folder, side=8192, chunk=512, n_levels=6):
    """A slide with pyramids of image, classes and ids; one object in each square of 64 px of a corner."""
    ids = np.zeros((side, side), np.uint32)
    at = np.arange(16, side // 4, 64)
    values = np.arange(1, len(at) ** 2 + 1).reshape(len(at), len(at))
    for dy, dx in np.ndindex(20, 20):
        ids[np.ix_(at + dy, at + dx)] = values
    classes = (ids > 0).astype(np.uint8)
    location = str(write_segmentation(folder / "out.ome.zarr", classes, files=(chunk, chunk), n_levels=n_levels))
    image = str(write_segmentation(folder / "image.ome.zarr", classes * 200, files=(chunk, chunk), n_levels=n_levels))
    image = store.join(image, "labels/segmentation")
    record = store.read_attributes(location, "labels/segmentation")[ATTRIBUTE]
    made_of = {"location": image, "level": 0, "fingerprint": mark_of(image, {})}
    store.update_attributes(
        location,
        "labels/segmentation",
        {ATTRIBUTE: {**record, "input": made_of}},
    )
    group = "labels/segmentation-instances"
    shown = store.read_attributes(location, "labels/segmentation")["ome"]
    shapes = [(side >> level, side >> level) for level in range(n_levels)]
    specs = [ArraySpec(str(k), shape, (chunk,) * 2, (chunk,) * 2, "uint32", "yx") for k, shape in enumerate(shapes)]
    made = {"parameters": {"ndim": 2}, "input": {}, "n_objects": int(ids.max())}
    store.create_group(location, group, specs, {"ome": shown, ATTRIBUTE: made})
    store.open_array(location, f"{group}/0", writable=True)[...] = ids
    build_pyramid(location, group, specs, "yx", "nearest")
    return location


@pytest.mark.slow
def test_of_a_large_slide_few_chunks_are_read_and_the_whole_is_shown(tmp_path, count_reads):
    location = write_large(tmp_path)
    count_reads.clear()
    page = parse(make_report(location, "segmentation"))
    assert len(page.images) == 8, "whole, field, two places; each with and without labels"
    n_chunks = 16**2
    finest = {name: n for name, n in count_reads.items() if name.endswith("/0")}
    assert sum(finest.values()) > 0, "control: reads are counted"
    assert max(finest.values()) <= 0.05 * n_chunks, finest
    assert "Around A" in page.text


# -- one file ------------------------------------------------------------------------------------------------------


def test_nothing_comes_from_elsewhere(page):
    assert outside_links(page) == []
    assert all(source.startswith("data:image/") for source in parse(page).images)
    assert len(page) < 3_000_000


@pytest.mark.parametrize(
    "planted",
    ['<img src="pictures/a.png">', '<link href="https://example.org/a.css">', "<script>1</script>",
     "<style>@import 'a.css';</style>", '<p style="background:url(//example.org/a.png)">'],
)  # fmt: skip
def test_the_check_for_other_files_sees_them(planted):
    assert outside_links(f"<html>{planted}</html>".replace('a.png)">', 'a.png)"></p>').replace("</link>", "")
                         .replace('a.css">', 'a.css"></link>'))  # fmt: skip


def test_equal_outputs_give_equal_bytes(page, measured_once):
    assert make_report(str(measured_once), NAME) == page


HOSTILE = "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a$b$ & <b>", "</style></title><h1>"


def test_names_and_paths_are_words_whatever_they_hold(tmp_path):
    ids = draw_objects((40, 50))
    folder = tmp_path / '"><img src=x onerror=alert(1)>'
    folder.mkdir()
    image = np.stack([noise(40, 50), noise(40, 50, seed=1)])
    location = write_store(folder, ids, (32, 32), image=image, image_axes="cyx", channels=HOSTILE[:2])
    attributes = store.read_attributes(location, f"labels/{NAME}")
    record = attributes[ATTRIBUTE]
    record["model"] = {"classes": ["background", HOSTILE[0], HOSTILE[2]], "path": HOSTILE[3], "sha256": HOSTILE[1]}
    record["parameters"] = {"precision": HOSTILE[1], HOSTILE[0]: HOSTILE[3]}
    record["code"] = {"name": HOSTILE[0], "version": HOSTILE[3]}
    store.update_attributes(location, f"labels/{NAME}", {ATTRIBUTE: record})
    measure(location)
    page = make_report(location, NAME)
    report = parse(page)
    assert outside_links(page) == []
    assert not report.handlers
    assert report.tags.count("h1") == report.tags.count("title") == 1
    for text in (HOSTILE[0], HOSTILE[2], HOSTILE[3]):
        assert text in report.text


def test_the_check_of_words_sees_markup_that_was_not_escaped():
    report = parse(tag("p", trusted(HOSTILE[1].removeprefix('">'))))
    assert report.handlers == [("img", "onerror")]
    assert not parse(tag("p", HOSTILE[1])).handlers


# -- what is there and what is not ----------------------------------------------------------------------------------


def test_a_segmentation_that_is_not_complete_says_how_far_it_is(tmp_path):
    classes = (noise(128, 128) > 100).astype(np.uint8)
    path = write_segmentation(tmp_path / "out.ome.zarr", classes, n_levels=2)
    shutil.rmtree(path / "labels/segmentation/1/c")
    (path / "labels/segmentation/0/c/1/1").unlink()
    report = parse(make_report(str(path), "segmentation"))
    assert "not complete: 3 of 4 blocks" in report.text
    assert "3 of 4 blocks are segmented so far (75%)" in report.text
    assert any(
        block.startswith("segment-slide segment") and "slide.ome.zarr --model cells.safetensors" in block
        for block in report.blocks
    )
    assert "%." not in report.text.partition("What was found")[2].partition("How long")[0], "no share of half an image"


def test_a_pyramid_that_is_not_complete_is_told(tmp_path):
    path = write_segmentation(tmp_path / "out.ome.zarr", noise(128, 128), n_levels=2)
    shutil.rmtree(path / "labels/segmentation/1/c")
    text = parse(make_report(str(path), "segmentation")).text
    assert "not complete: pyramid" in text
    assert "1 file of the coarser resolutions is missing" in text


def test_labels_are_shown_alone_where_the_image_is_gone(page, measured, tmp_path):
    before = parse(page)
    shutil.rmtree(tmp_path / "image.ome.zarr")
    after = parse(make_report(measured, NAME))
    assert len(after.images) == len(before.images) // 2
    assert "labels are drawn alone" in after.text
    assert "labels are drawn alone" not in before.text


@pytest.mark.parametrize(("shape", "value"), [((1, 1), 0), ((1, 1), 1), ((1, 700), 1), ((900, 1), 0), ((3, 2), 1)])
def test_images_of_odd_shapes_have_a_report(tmp_path, shape, value):
    ids = np.full(shape, value, np.uint32)
    location = write_store(tmp_path, ids, (64, 64), image=noise(*shape), classes=ids.astype(np.uint8))
    measure(location)
    text = parse(make_report(location, NAME)).text
    assert ("1 object in" if value else "No objects in") in text


def test_four_channels_and_a_table_without_intensities_have_a_report(tmp_path):
    ids = draw_objects(SHAPE)
    image = noise(4, *SHAPE)
    location = write_store(tmp_path, ids, (32, 32), image=image, image_axes="cyx", unit=None)
    measure(location, NO_IMAGE)
    text = parse(make_report(location, NAME)).text
    assert "per Mpx" in text
    assert "Intensity in" not in text
    assert "--no-image" in text


@pytest.mark.parametrize(
    ("unit", "step", "said"),
    [("inch", 0.5 / 25400, "y 0.5 µm, x 0.5 µm"), ("Å", 5000.0, "y 0.5 µm, x 0.5 µm"), ("furlong", 1.0, "unknown")],
)
def test_a_report_says_sizes_of_every_unit_in_um(tmp_path, unit, step, said):
    ids = draw_objects(SHAPE)
    location = write_store(tmp_path, ids, (32, 32), image=noise(*SHAPE), scale=(step, step), unit=unit)
    found = measure(location)
    text = parse(make_report(location, NAME)).text
    assert said in text
    assert ("per mm²" in text) == (unit != "furlong")
    if unit != "furlong":
        np.testing.assert_allclose(found["area_um2"], found["area_px"] * 0.25)


def test_a_damaged_part_of_the_table_is_named_and_the_rest_is_reported(measured):
    with open(f"{measured}/tables/{NAME}-instances.parquet/part-00001.parquet", "r+b") as file:
        file.truncate(50)
    text = parse(make_report(measured, NAME)).text
    assert "part-00001.parquet is damaged" in text
    assert "How it looks" in text


def test_a_table_of_other_objects_is_not_reported(measured):
    group = f"labels/{NAME}-instances"
    record = store.read_attributes(measured, group)[ATTRIBUTE]
    store.update_attributes(measured, group, {ATTRIBUTE: {**record, "n_objects": record["n_objects"] + 1}})
    facts = gather(measured, NAME)
    assert facts.table is None
    assert "The table is of other objects" in parse(make_report(measured, NAME)).text


@pytest.mark.slow
def test_times_are_those_of_the_files(measured):
    blocks = sorted(p for p in Path(measured, f"labels/{NAME}/0/c").rglob("*") if p.is_file())
    for k, path in enumerate(blocks):
        os.utime(path, (1_000_000 + 60 * k,) * 2)
    (classes, *_) = file_spans(gather(measured, NAME))
    assert (classes.what, classes.n_files, classes.seconds) == ("classes", len(blocks), 60 * (len(blocks) - 1))
    text = parse(make_report(measured, NAME, seconds={"convert": 1.5, "segment": 7300.0})).text
    assert "segment 2 h 1 min" in text
    assert f"{len(blocks)} {len(blocks) - 1} min 0 s" in text


# -- where it goes -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_goes_beside_the_output_which_stays_as_it_is(measured, tmp_path):
    before = tree(tmp_path / "out.ome.zarr")
    path = write_report(measured).path
    assert path == str(tmp_path / "out.report.html") == report_path(measured, NAME)
    assert tree(tmp_path / "out.ome.zarr") == before
    assert write_report(measured).path == path, "a report of ours is replaced"


def test_the_label_image_is_the_one_that_the_store_shows_or_the_one_that_is_named(tmp_path):
    location = str(write_segmentation(tmp_path / "out.ome.zarr", noise(8, 8), name="nuclei"))
    assert choose_name(location, None) == "nuclei"
    for name in ("a", "a-instances", "b"):
        store.create_group(location, f"labels/{name}", [], {})
    listed = {"ome": {"version": ome.VERSION, "labels": ["a", "a-instances", "b", "gone"]}}
    store.update_attributes(location, "labels", listed)
    with pytest.raises(InputError, match=r"several \(a, b\); choose one with `name`"):
        choose_name(location, None)
    assert choose_name(location, "b") == "b"
    with pytest.raises(InputError, match="no segmentation 'c'; there are a, a-instances, b"):
        choose_name(location, "c")
    assert report_path(location, "b").endswith("/out.b.report.html")


def test_what_is_no_segmentation_is_refused(tmp_path):
    with pytest.raises(InputError, match="no OME-Zarr is there"):
        write_report(str(tmp_path / "nothing.ome.zarr"))
    image = write_ome(tmp_path / "image.ome.zarr", noise(8, 8), "yx")
    with pytest.raises(InputError, match="expected a segmentation in labels/, found none"):
        write_report(str(image))
    write_group(image / "labels", {"ome": {"version": "0.5", "labels": ["theirs"]}})
    write_ome(image / "labels/theirs", noise(8, 8), "yx")
    with pytest.raises(InputError, match="was not made by segment-slide"):
        write_report(str(image))
    assert {path.name for path in tmp_path.iterdir()} == {"image.ome.zarr"}


def test_other_peoples_files_stay_as_they_are(measured, tmp_path):
    theirs = tmp_path / "theirs.html"
    theirs.write_text("<html>mine</html>")
    with pytest.raises(OutputError, match="is not a report of segment-slide"):
        write_report(measured, path=str(theirs))
    assert theirs.read_text() == "<html>mine</html>"
    with pytest.raises(OutputError, match="is a folder"):
        write_report(measured, path=str(tmp_path))
    with pytest.raises(OutputError, match="missing is not there"):
        write_report(measured, path=str(tmp_path / "missing/a.html"))
    assert not list(tmp_path.glob("*.report.html"))


def test_the_table_may_be_measured_in_another_image(tmp_path, ids):
    """What is reported follows the table's columns, not the record of the segmentation."""
    location = write_store(tmp_path, ids, (32, 32))
    other = write_ome(tmp_path / "other.ome.zarr", noise(*SHAPE), "yx")
    plan = plan_of(location, ImageChoice(str(other)))
    begin(plan)
    write_table(plan, measure_blocks(plan))
    text = parse(make_report(location, NAME)).text
    assert "Intensity in channel 0" in text
    assert CLASSES[1] in text
