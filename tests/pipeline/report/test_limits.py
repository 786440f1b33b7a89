"""Reports of outputs that are damaged, crowded or in motion, and of places where no report can go."""

import os
import warnings
from pathlib import Path

import numpy as np
import pandas
import pytest
import zarr

import segment_slide.pipeline.report.target
from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.measurement.summary import SizeCounts, choose_groups, gather_rare
from segment_slide.pipeline.report.facts import gather
from segment_slide.pipeline.report.places import CountMap
from segment_slide.pipeline.report.run import make_report, write_report
from segment_slide.pipeline.report.sections import Content, lead
from segment_slide.pipeline.report.table import describe_table
from segment_slide.pipeline.report.target import MARK, check_target, discard, save
from segment_slide.pipeline.report.times import file_spans
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.record import ATTRIBUTE
from tests.flows.support import noise, run_here, write_segmentation
from tests.pipeline.measurement.support import NAME, NO_IMAGE, draw_objects, measure, write_store
from tests.pipeline.report.support import parse

# -- where it goes -------------------------------------------------------------------------------------------------


@pytest.fixture
def output(tmp_path):
    return str(write_segmentation(tmp_path / "cells.ome.zarr", (noise(90, 80) > 200).astype("uint8")))


def test_pipes_and_devices_are_refused_at_once(output, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (str(tmp_path / "pipe"), "/dev/zero"):
        with pytest.raises(OutputError, match="is a device, a pipe or a socket"):
            write_report(output, path=path)
    assert run_here("report", output, "-o", "/dev/zero").exit_code == 2


def test_of_what_is_there_only_the_beginning_is_read(tmp_path):
    large = tmp_path / "large.html"
    with large.open("wb") as file:
        file.write(MARK.encode())
        file.truncate(1 << 40)  # more than any memory
    check_target(str(large))
    late = tmp_path / "late.html"
    late.write_bytes(b" " * 2000 + MARK.encode())
    with pytest.raises(OutputError, match="is not a report"):
        check_target(str(late))


def test_a_link_stays_a_link(output, tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "a.html").symlink_to(tmp_path / "web/b.html")
    written = write_report(output, path=str(tmp_path / "a.html"))
    assert (tmp_path / "a.html").is_symlink()
    content = (tmp_path / "web/b.html").read_bytes()
    assert MARK.encode() in content
    assert len(content) == written.n_bytes


def test_halves_of_a_killed_run_are_removed_and_nothing_else(tmp_path):
    path = tmp_path / "a.html"
    old = [
        tmp_path / f"a.html.{'0' * 32}.partial",
        tmp_path / f"b.html.{'0' * 32}.partial",
        tmp_path / "a.html.x.partial",
    ]
    new = tmp_path / f"a.html.{'1' * 32}.partial"
    for half in (*old, new):
        half.write_bytes(b"x")
        os.utime(half, (1e9, 1e9))
    os.utime(new)
    save(str(path), b"page")
    assert {p.name for p in tmp_path.iterdir()} == {path.name, new.name, old[1].name, old[2].name}


def test_only_a_report_is_discarded(tmp_path):
    ours, theirs = tmp_path / "a.html", tmp_path / "b.html"
    ours.write_text(MARK)
    theirs.write_text("mine")
    for path in (ours, theirs, tmp_path / "none.html"):
        discard(str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["b.html"]


class Bucket:
    """An object store that notes what it is given."""

    def __init__(self, *, knows_types):
        self.given, self.knows_types = [], knows_types

    def pipe_file(self, path, content, **options):
        if options and not self.knows_types:
            raise TypeError("unexpected keyword")
        self.given.append(options)

    def cat_file(self, path, start=None, end=None):
        self.given.append((start, end))
        return MARK.encode()

    def invalidate_cache(self):
        pass

    def exists(self, path):
        return True


@pytest.mark.parametrize("knows_types", [True, False])
def test_object_stores_are_told_that_it_is_a_page(monkeypatch, knows_types):
    bucket = Bucket(knows_types=knows_types)
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (bucket, url))
    check_target("s3://bucket/a.html")
    save("s3://bucket/a.html", b"page")
    typed = {"ContentType": "text/html; charset=utf-8"} if knows_types else {}
    assert bucket.given == [(0, segment_slide.pipeline.report.target._HEAD_BYTES), typed]


# -- damage --------------------------------------------------------------------------------------------------------


def damage(path):
    path.write_bytes(b"\x07" * 40)


@pytest.fixture
def large(tmp_path):
    """The whole, a field and a place are shown; each chunk is a file."""
    ids = np.zeros((2100, 2100), np.uint32)
    ids[100:130, 100:130], ids[1900:1930, 1900:1930], ids[1950:1970, 1900:1930] = 1, 2, 3
    image = np.where(ids > 0, 200, 20).astype(np.uint8)
    location = write_store(tmp_path, ids, (256, 256), image=image, classes=(ids > 0).astype(np.uint8))
    measure(location, NO_IMAGE)
    return location


@pytest.mark.slow
def test_a_damaged_chunk_costs_the_pictures_that_need_it_alone(large):
    whole = parse(make_report(large, NAME))
    assert len(whole.images) == 6
    damage(Path(large, f"labels/{NAME}-instances/0/c/7/7"))
    report = parse(make_report(large, NAME))
    assert len(report.images) == 4
    assert report.text.count("is left out, for a file of the labels is damaged") == 1


@pytest.mark.slow
def test_where_the_image_is_damaged_labels_are_drawn_alone(large, tmp_path):
    for chunk in (tmp_path / "image.ome.zarr/0/c").rglob("*"):
        if chunk.is_file():
            damage(chunk)
    report = parse(make_report(large, NAME))
    assert len(report.images) == 3
    assert "is not used: it is not the image that was segmented" in report.text  # its content is another one


def test_files_that_vanish_while_they_are_listed_are_left_out(output, monkeypatch):
    stat = os.stat
    expected = file_spans(gather(output, "segmentation"))[0].n_files

    def gone(path, *args, **kwargs):
        if str(path).endswith("/c/0/0"):
            raise FileNotFoundError(path)
        return stat(path, *args, **kwargs)

    facts = gather(output, "segmentation")
    monkeypatch.setattr(os, "stat", gone)
    assert file_spans(facts)[0].n_files == expected - 1


def test_an_image_of_other_files_is_told(tmp_path):
    location = write_store(tmp_path, draw_objects((40, 50)), (32, 32), image=noise(40, 50))
    assert "has other files" not in parse(make_report(location, NAME)).text
    (chunk, *_) = (path for path in (tmp_path / "image.ome.zarr/0/c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes())
    assert "has other files" not in parse(make_report(location, NAME)).text  # other times are no other content
    zarr.open_array(tmp_path / "image.ome.zarr/0")[0, :2] = (1, 2)
    assert "is not used: it is not the image that was segmented" in parse(make_report(location, NAME)).text


# -- many classes --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_fifty_classes_in_nine_channels_of_noise_stay_a_page(tmp_path):
    n, side = 50, 24
    ids = np.zeros((1300, 1300), np.uint32)
    for k in range(2500):
        y, x = side * 2 * (k // 27) % 1290, side * 2 * (k % 27)
        ids[y : y + 9 + k % 7, x : x + 9] = k + 1
    ids = np.unique(ids, return_inverse=True)[1].reshape(ids.shape).astype(np.uint32)
    classes = np.where(ids > 0, 1 + ids % n, 0).astype(np.uint8)
    image = noise(9, *ids.shape)
    location = write_store(tmp_path, ids, (512, 512), image=image, image_axes="cyx", classes=classes)
    record = store.read_attributes(location, f"labels/{NAME}")[ATTRIBUTE]
    names = ["background", *(f"a class with quite a long name, number {k}" for k in range(1, n + 1))]
    store.update_attributes(location, f"labels/{NAME}", {ATTRIBUTE: {**record, "model": {"classes": names}}})
    measure(location)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = make_report(location, NAME)
    assert len(page.encode()) < 3_000_000
    (tmp_path / "page.html").write_text(page)
    report = parse(page)
    assert report.text.count("42 others") >= 2
    assert "1 more channel is in the table" in report.text


def counts_of(*numbers):
    return tuple(SizeCounts(*np.array([[k + 1], [10 * (k + 1)], [number], [0]])) for k, number in enumerate(numbers))


def test_rare_classes_are_gathered_and_nothing_is_lost(tmp_path):
    location = write_store(tmp_path, draw_objects((90, 130)), (32, 32))
    measure(location, NO_IMAGE)
    summary = describe_table(gather(location, NAME), {"t": 0, "z": 0}, 512).summary
    assert gather_rare(summary, 8) is summary
    assert gather_rare(summary, 1) is summary, "one is not called others"
    gathered = gather_rare(summary, 0)
    (others,) = gathered.classes
    table = pandas.read_parquet(f"{location}/tables/{NAME}-instances.parquet")
    assert (others.name, others.n_objects) == ("2 others", len(table))
    assert others.quartiles == tuple(np.quantile(table["area_um2"], (0.25, 0.5, 0.75)))
    assert others.covered == pytest.approx(summary.all.covered)
    assert sorted(row for group in choose_groups(summary, 0) for row in group) == [0, 1]


# -- areas and densities --------------------------------------------------------------------------------------------


def write_film(folder):
    """At each of three time points as many objects."""
    ids = np.zeros((3, 90, 100), np.uint32)
    for t in range(3):
        ids[t, 5:85:10, 5:95:10] = 1 + 72 * t + np.arange(72).reshape(8, 9)
    location = write_store(folder, ids, (1, 64, 64), axes="tyx", scale=(1.0, 2.0, 2.0))
    measure(location, NO_IMAGE)
    return location


@pytest.mark.slow
def test_the_map_of_a_film_says_the_density_that_its_first_sentence_says(tmp_path, monkeypatch):
    seen = {}

    def keep(places: CountMap, scale, *, unit, density_factor, density):
        values = places.per_px(64) * density_factor
        seen["mean"], seen["unit"] = places.counts.sum() / np.prod(places.size) * density_factor, density
        assert values.max() > 0
        return "<svg></svg>"

    monkeypatch.setattr("segment_slide.pipeline.report.sections.plot_heat", keep)
    location = write_film(tmp_path)
    text = parse(make_report(location, NAME)).text
    facts = gather(location, NAME)
    table = describe_table(facts, {"t": 0, "z": 0}, 512)
    assert table.summary.all.n_objects == 3 * 72
    assert seen == {"mean": pytest.approx(table.summary.all.density), "unit": "mm²"}
    assert seen["mean"] == pytest.approx(72 / (90 * 100 * 4e-6))
    assert "0.036 mm² × 3 time points of image, glass included" in text
    assert "means over 3 time points" in text


def test_rare_classes_and_left_out_glass_are_told(tmp_path):
    classes = np.zeros((300, 300), np.uint8)
    for value in range(1, 7):
        classes[value, : 40 - 5 * value] = value
    path = str(write_segmentation(tmp_path / "a.ome.zarr", classes))
    record = store.read_attributes(path, "labels/segmentation")[ATTRIBUTE]
    changed = {**record, "parameters": {"skip_background": True}}
    store.update_attributes(path, "labels/segmentation", {ATTRIBUTE: changed})
    text = parse(make_report(path, "segmentation")).text
    assert "cell < 0.1%" in text
    assert "and 2 more." in text
    assert "glass included, and the blocks of it that were left out" in text
    assert "classes complete" in text


def test_without_a_record_nothing_is_called_complete(tmp_path):
    location = write_store(tmp_path, draw_objects((40, 50)), (32, 32))
    facts = gather(location, NAME)
    assert lead(Content(facts, None, None, None)).endswith("per µm².")
    group = Path(location, f"labels/{NAME}/zarr.json")
    group.write_text(group.read_text().replace(f'"{ATTRIBUTE}"', '"somebody_else"'))
    assert "complete" not in parse(make_report(location, NAME)).text.partition("How it looks")[0]
