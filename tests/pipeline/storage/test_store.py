"""What is in a store, told from metadata and file names alone; creation that may be killed and repeated."""

import dataclasses
import itertools
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.errors import InputError, OutputError, PipelineError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.fingerprint import fingerprint
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.ome import Level, Multiscale, multiscale_attributes
from segment_slide.pipeline.storage.store import create_group, read_attributes, stored_shards


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def ome_slide(folder: Path, axes: str = "cyx", *, version: str = "0.5", n_levels: int = 2, **layout: Any) -> Path:
    """An OME-Zarr image of noise of two resolutions or more."""
    levels = tuple(Level(str(k), (0.5 * 2**k,) * len(axes), (float(k),) * len(axes)) for k in range(n_levels))
    described = Multiscale(axes, ("micrometer",) * len(axes), levels, "slide")
    attributes = multiscale_attributes(described)
    if version == "0.4":
        attributes = {"multiscales": [{**attributes["multiscales"][0], "version": "0.4"}]}
    else:
        attributes = {"ome": attributes}
    group = zarr.create_group(folder, zarr_format=2 if version == "0.4" else 3, attributes=attributes)
    rng = np.random.default_rng(0)
    for level in range(n_levels):
        shape = tuple(3 if axis == "c" else 40 >> level for axis in axes)
        pixels = rng.integers(1, 255, shape).astype(np.uint16)
        group.create_array(str(level), data=pixels, **{"chunks": (1,) * (len(axes) - 2) + (8, 8), **layout})
    return folder


# --- describing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "layout", "zarr_format", "file_shape"),
    [
        ("0.4", {}, 2, (1, 8, 8)),
        ("0.5", {}, 3, (1, 8, 8)),
        ("0.5", {"shards": (3, 16, 16)}, 3, (3, 16, 16)),
    ],
    ids=["0.4", "0.5", "0.5 sharded"],
)
def test_an_ome_image_is_described_without_reading_a_pixel(
    tmp_path: Path, version: str, layout: dict[str, Any], zarr_format: int, file_shape: tuple[int, ...]
) -> None:
    location = ome_slide(tmp_path / "slide.zarr", version=version, **layout)
    for level, size in ((0, 40), (1, 20)):
        shutil.rmtree(location / str(level) / "c", ignore_errors=True)
        image = describe_image(location, level=level)
        assert (image.shape, image.chunks, image.dtype) == ((3, size, size), file_shape, "uint16")
        assert (image.array_path, image.level, image.is_ome, image.zarr_format) == (
            str(level),
            level,
            True,
            zarr_format,
        )
        assert (image.axes, image.size("c"), image.size("x"), image.size("z")) == ("cyx", 3, size, 1)
        assert [item.scale[0] for item in image.multiscale.levels] == [0.5, 1.0]
        assert image.location == str(location)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_bare_array_is_described_with_the_axes_it_is_given(tmp_path: Path, zarr_format: int) -> None:
    zarr.create_array(
        str(tmp_path / "bare"), shape=(40, 30, 3), chunks=(16, 16, 3), dtype=">u2", zarr_format=zarr_format
    )
    image = describe_image(tmp_path / "bare", axes="yxc")
    assert (image.axes, image.shape, image.chunks, image.array_path) == ("yxc", (40, 30, 3), (16, 16, 3), "")
    assert (image.is_ome, image.zarr_format, image.level) == (False, zarr_format, 0)
    assert image.multiscale.levels[0].scale == (1.0, 1.0, 1.0)
    assert image.array().shape == (40, 30, 3)


def test_a_level_inside_an_ome_image_may_be_named_as_a_bare_array(tmp_path: Path) -> None:
    location = ome_slide(tmp_path / "slide.zarr")
    assert describe_image(location / "1", axes="cyx").shape == (3, 20, 20)


def test_a_relative_location_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ome_slide(tmp_path / "slide.zarr")
    monkeypatch.chdir(tmp_path)
    assert describe_image("slide.zarr/").location == str(tmp_path / "slide.zarr")


def damage(location: Path, what: str) -> None:
    """One thing wrong with a good OME-Zarr image."""
    match what:
        case "no group":
            (location / "zarr.json").unlink()
        case "cut off":
            (location / "zarr.json").write_text((location / "zarr.json").read_text()[:50])
        case "emptied":
            (location / "zarr.json").write_bytes(b"")
        case "no array":
            shutil.rmtree(location / "0")
        case "array cut off":
            (location / "0/zarr.json").write_text((location / "0/zarr.json").read_text()[:50])
        case "array of another dimension":
            shutil.rmtree(location / "0")
            zarr.create_array(str(location / "0"), shape=(5, 5), dtype="uint8")
        case "no pixels":
            shutil.rmtree(location / "0")
            zarr.create_array(str(location / "0"), shape=(3, 0, 5), chunks=(1, 1, 1), dtype="uint8")
        case "complex numbers":
            shutil.rmtree(location / "0")
            zarr.create_array(str(location / "0"), shape=(3, 5, 5), dtype="complex64")
        case "a collection":
            zarr.open_group(location, mode="w").attrs["bioformats2raw.layout"] = 3
        case "a plate":
            zarr.open_group(location, mode="w").attrs["ome"] = {"plate": {}}
        case "a plain group":
            zarr.open_group(location, mode="w")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no group", "is not Zarr .* segment-slide ingest"),
        ("cut off", "metadata cannot be read"),
        ("emptied", "metadata cannot be read"),
        ("no array", "level 0 names the array '0', which is missing or damaged"),
        ("array cut off", "level 0 names the array '0', which is missing or damaged"),
        ("array of another dimension", r"array '0' has shape \(5, 5\), but axes are 'cyx'"),
        ("no pixels", r"shape=\(3, 0, 5\) has no pixels"),
        ("complex numbers", "dtype=complex64, expected integers or real numbers"),
        ("a collection", "is a collection of images; name one of them, but none of them is there"),
        ("a plate", "is a plate; name one field of view, but none of them is there"),
        ("a plain group", "without OME-Zarr 'multiscales' metadata; name the array inside it and its `axes`"),
    ],
)
def test_what_is_no_image_is_refused_with_what_it_is(tmp_path: Path, what: str, message: str) -> None:
    location = ome_slide(tmp_path / "slide.zarr")
    describe_image(location)
    damage(location, what)
    with pytest.raises(InputError, match=message) as refusal:
        describe_image(location)
    assert str(location) in str(refusal.value)


def test_a_place_without_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or directory"):
        describe_image(tmp_path / "nowhere")
    (tmp_path / "scan.svs").write_bytes(b"II*\0")
    with pytest.raises(InputError, match="is a file, expected a Zarr directory; convert it: segment-slide ingest"):
        describe_image(tmp_path / "scan.svs")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is not Zarr"):
        describe_image(tmp_path / "empty")


@pytest.mark.parametrize("level", [-1, 2, 100])
def test_a_level_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path, level: int) -> None:
    with pytest.raises(InputError, match=rf"level={level}, expected 0 to 1"):
        describe_image(ome_slide(tmp_path / "slide.zarr"), level=level)


def test_axes_are_for_bare_arrays_only_and_needed_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`axes`='cyx' was given, but .* says axes='cyx' itself"):
        describe_image(ome_slide(tmp_path / "slide.zarr"), axes="cyx")
    zarr.create_array(str(tmp_path / "bare"), shape=(4, 5, 6), dtype="uint8")
    with pytest.raises(InputError, match=r"bare Zarr array of shape \(4, 5, 6\) without axes; .* for example zyx"):
        describe_image(tmp_path / "bare")
    with pytest.raises(InputError, match=r"axes='yx' names 2 dimensions, but .* \(4, 5, 6\)"):
        describe_image(tmp_path / "bare", axes="yx")
    with pytest.raises(InputError, match="expected distinct letters"):
        describe_image(tmp_path / "bare", axes="abc")


# --- fingerprints ----------------------------------------------------------------------------------------------

CHUNK = {"0.4": "0/1.2.3", "0.5": "0/c/1/2/3"}


@pytest.mark.parametrize("version", CHUNK)
def test_a_fingerprint_stays_while_nothing_of_the_level_changes(tmp_path: Path, version: str) -> None:
    location = ome_slide(tmp_path / "slide.zarr", version=version)
    before = fingerprint(describe_image(location))
    assert fingerprint(describe_image(location)) == before
    (location / CHUNK[version]).read_bytes()
    (location / CHUNK[version].replace("0", "1", 1)).parent.joinpath("more").write_text("another level's")
    zarr.open_group(location, mode="r+").create_array("labels/cells/0", shape=(5, 5), dtype="uint8")
    assert fingerprint(describe_image(location)) == before
    shutil.move(location, tmp_path / "elsewhere.zarr")
    assert fingerprint(describe_image(tmp_path / "elsewhere.zarr")) == before
    chunk = tmp_path / "elsewhere.zarr" / CHUNK[version]
    os.utime(chunk, ns=(0, 0))  # times are no content
    assert fingerprint(describe_image(tmp_path / "elsewhere.zarr")) == before


@pytest.mark.parametrize("version", CHUNK)
@pytest.mark.parametrize("change", ["longer", "rewritten", "removed", "added", "metadata"])
def test_a_fingerprint_changes_when_a_file_of_the_level_does(tmp_path: Path, version: str, change: str) -> None:
    location = ome_slide(tmp_path / "slide.zarr", version=version)
    before = fingerprint(describe_image(location))
    chunk = location / CHUNK[version]
    status, content = chunk.stat(), chunk.read_bytes()
    match change:
        case "longer":
            chunk.write_bytes(content + b"\0")
            os.utime(chunk, ns=(status.st_atime_ns, status.st_mtime_ns))
        case "rewritten":
            chunk.write_bytes(content[::-1])
            os.utime(chunk, ns=(status.st_atime_ns, status.st_mtime_ns))
        case "removed":
            chunk.unlink()
        case "added":
            chunk.with_name("9").write_bytes(b"")
        case "metadata":
            metadata = location / "0" / (".zarray" if version == "0.4" else "zarr.json")
            metadata.write_text(metadata.read_text() + "\n")
    assert fingerprint(describe_image(location)) != before


def test_the_levels_of_an_image_have_different_fingerprints(tmp_path: Path) -> None:
    location = ome_slide(tmp_path / "slide.zarr")
    assert fingerprint(describe_image(location)) != fingerprint(describe_image(location, level=1))


def test_where_files_cannot_be_listed_the_metadata_alone_are_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segment_slide.pipeline.storage.fingerprint._local_files", lambda base: [])  # as over HTTP
    location = ome_slide(tmp_path / "slide.zarr")
    first, second = describe_image(location), describe_image(location, level=1)
    assert fingerprint(first) == fingerprint(describe_image(location))
    assert fingerprint(first) != fingerprint(second)
    assert fingerprint(first) != fingerprint(dataclasses.replace(first, shape=(3, 40, 41)))
    assert fingerprint(first) != fingerprint(dataclasses.replace(first, dtype="uint8"))


# --- creating --------------------------------------------------------------------------------------------------

ARRAYS = [
    ArraySpec("0", (2, 70, 50), (1, 32, 32), (1, 16, 16), "uint8", "zyx"),
    ArraySpec("1", (2, 35, 25), (1, 32, 32), (1, 16, 16), "uint8", "zyx"),
]


def test_a_created_group_has_its_arrays_and_attributes_and_no_shard(tmp_path: Path) -> None:
    location = str(tmp_path / "out")
    create_group(location, "labels/cells", ARRAYS, {"ome": {"version": "0.5"}})
    assert read_attributes(location, "labels/cells") == {"ome": {"version": "0.5"}}
    for spec in ARRAYS:
        array = store.open_array(location, f"labels/cells/{spec.path}")
        assert (array.shape, array.shards, array.chunks) == (spec.shape, spec.shard, spec.chunk)
        assert (array.dtype, array.fill_value) == (np.uint8, 0)
        assert array.metadata.dimension_names == ("z", "y", "x")  # type: ignore[union-attr]
    assert all(Path(name).name == "zarr.json" for name in files_of(tmp_path))


def test_shards_are_counted_rounding_up() -> None:
    assert [spec.n_shards for spec in ARRAYS] == [2 * 3 * 2, 2 * 2 * 1]


def test_the_groups_own_metadata_are_written_last(tmp_path: Path) -> None:
    create_group(str(tmp_path), "labels/cells", ARRAYS, {"record": 1})
    group = (tmp_path / "labels/cells/zarr.json").stat().st_mtime_ns
    assert all(group >= (tmp_path / "labels/cells" / spec.path / "zarr.json").stat().st_mtime_ns for spec in ARRAYS)
    (tmp_path / "labels/cells/zarr.json").unlink()
    assert not read_attributes(str(tmp_path), "labels/cells")  # without them it is not begun


def test_an_interrupted_creation_is_repeated_with_the_same_bytes(tmp_path: Path) -> None:
    attributes = {"ome": {"version": "0.5"}, "record": {"input": "a", "numbers": [1, 2.5]}}
    create_group(str(tmp_path / "whole"), "labels/cells", ARRAYS, attributes)
    whole = files_of(tmp_path / "whole")
    for number, missing in enumerate(
        itertools.chain.from_iterable(itertools.combinations(whole, count) for count in range(len(whole) + 1))
    ):
        location = tmp_path / f"killed {number}"
        shutil.copytree(tmp_path / "whole", location)
        for name in missing:
            (location / name).unlink()
        create_group(str(location), "labels/cells", ARRAYS, attributes)
        assert files_of(location) == whole, missing


def test_creating_a_group_again_keeps_attributes_that_it_does_not_set(tmp_path: Path) -> None:
    create_group(str(tmp_path), "", [], {"ome": {"version": "0.5"}, "mine": 1})
    create_group(str(tmp_path), "", [], {"mine": 2})
    assert read_attributes(str(tmp_path)) == {"ome": {"version": "0.5"}, "mine": 2}
    store.update_attributes(str(tmp_path), "", {"yours": 3})
    assert read_attributes(str(tmp_path)) == {"ome": {"version": "0.5"}, "mine": 2, "yours": 3}


def test_a_place_that_cannot_hold_a_group_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be created"):
        create_group(str(tmp_path / "file"), "labels/cells", ARRAYS, {})


def test_attributes_are_none_where_nothing_is_and_refused_where_damaged(tmp_path: Path) -> None:
    assert read_attributes(str(tmp_path / "nowhere")) is None
    create_group(str(tmp_path), "labels", [], {"a": 1})
    (tmp_path / "labels/zarr.json").write_text('{"zarr_format": 3, "node')
    with pytest.raises(PipelineError, match="labels: its Zarr metadata cannot be read"):
        read_attributes(str(tmp_path), "labels")


# --- shards ----------------------------------------------------------------------------------------------------


def box_of(spec: ArraySpec, index: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(i * n, min((i + 1) * n, size)) for i, n, size in zip(index, spec.shard, spec.shape, strict=True))


def write_shard(location: Path, spec: ArraySpec, index: tuple[int, ...], value: int) -> None:
    array = store.open_array(str(location), f"labels/cells/{spec.path}", writable=True)
    box = box_of(spec, index)
    store.write_box(array, box, np.full([s.stop - s.start for s in box], value, spec.dtype))


@pytest.mark.parametrize("value", [0, 7], ids=["background", "foreground"])
def test_stored_shards_are_exactly_those_that_were_written(tmp_path: Path, value: int) -> None:
    create_group(str(tmp_path), "labels/cells", ARRAYS, {})
    finest = ARRAYS[0]
    every = list(itertools.product(range(2), range(3), range(2)))
    assert len(every) == finest.n_shards
    rng = np.random.default_rng(value)
    written: set[tuple[int, ...]] = set()
    for number in rng.permutation(len(every)):
        assert stored_shards(str(tmp_path), "labels/cells/0") == written
        write_shard(tmp_path, finest, every[number], value)
        written.add(every[number])
    assert stored_shards(str(tmp_path), "labels/cells/0") == set(every)
    assert stored_shards(str(tmp_path), "labels/cells/1") == set()


def test_zarr_itself_would_not_store_a_shard_of_background(tmp_path: Path) -> None:
    create_group(str(tmp_path), "labels/cells", ARRAYS, {})
    array = zarr.open_array(str(tmp_path / "labels/cells/0"), mode="r+")
    array[box_of(ARRAYS[0], (0, 0, 0))] = 0
    assert stored_shards(str(tmp_path), "labels/cells/0") == set()


def test_files_that_are_no_shards_are_not_counted(tmp_path: Path) -> None:
    create_group(str(tmp_path), "labels/cells", ARRAYS, {})
    write_shard(tmp_path, ARRAYS[0], (1, 2, 0), 7)
    folder = tmp_path / "labels/cells/0/c/1/2"
    for name in (f"1.{uuid.uuid4().hex}.partial", ".DS_Store", "1~", "x"):
        (folder / name).write_bytes(b"?")
    assert stored_shards(str(tmp_path), "labels/cells/0") == {(1, 2, 0)}


def test_an_array_that_does_not_exist_has_no_shards(tmp_path: Path) -> None:
    assert stored_shards(str(tmp_path / "nowhere"), "labels/cells/0") == set()


def test_equal_pixels_are_equal_bytes_whenever_they_are_written(tmp_path: Path) -> None:
    for name in ("first", "second"):
        create_group(str(tmp_path / name), "labels/cells", ARRAYS, {"a": [1, 2]})
        order = [(0, 0, 0), (1, 2, 1)] if name == "first" else [(1, 2, 1), (0, 0, 0)]
        for index in order:
            write_shard(tmp_path / name, ARRAYS[0], index, sum(index))
    assert files_of(tmp_path / "first") == files_of(tmp_path / "second")


def test_a_shard_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    create_group(str(tmp_path), "labels/cells", ARRAYS, {})
    (tmp_path / "labels/cells/0/c").write_text("a file where the shards' folder should be")
    with pytest.raises(OutputError, match="labels/cells/0 cannot be written"):
        write_shard(tmp_path, ARRAYS[0], (0, 0, 0), 7)


# --- what is there ---------------------------------------------------------------------------------------------


def test_only_zarrs_own_unfinished_files_are_removed(tmp_path: Path) -> None:
    create_group(str(tmp_path), "labels/cells", ARRAYS, {})
    write_shard(tmp_path, ARRAYS[0], (1, 2, 0), 7)
    (tmp_path / "labels/cells/0/c/1/2/notes.partial").write_text("a user's")
    other = tmp_path / "labels/other/0" / f"c.{uuid.uuid4().hex}.partial"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"another label image's")
    before = files_of(tmp_path)
    for folder in ("labels/cells", "labels/cells/1", "labels/cells/0/c/1/2"):
        (tmp_path / folder / f"0.{uuid.uuid4().hex}.partial").write_bytes(b"half")
    store.remove_leftovers(str(tmp_path), "labels/cells")
    assert files_of(tmp_path) == before


def test_the_name_that_zarr_writes_aside_under_is_the_one_that_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_group(str(tmp_path), "labels/cells", ARRAYS, {})
    before = files_of(tmp_path)

    def killed(*args: Any) -> None:
        raise RuntimeError("killed before the rename")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        patched.setattr(Path, "unlink", lambda *args, **options: None)  # a killed process tidies nothing up
        with pytest.raises(RuntimeError, match="killed"):
            write_shard(tmp_path, ARRAYS[0], (0, 0, 0), 7)
    (left,) = files_of(tmp_path).keys() - before.keys()
    assert left.endswith(".partial")
    assert stored_shards(str(tmp_path), "labels/cells/0") == set()
    store.remove_leftovers(str(tmp_path), "labels/cells")
    assert files_of(tmp_path) == before


def test_a_place_is_occupied_by_a_file_or_by_anything_in_a_directory(tmp_path: Path) -> None:
    assert not store.is_occupied(str(tmp_path / "nowhere"))
    assert not store.is_occupied(str(tmp_path))
    (tmp_path / "file").write_text("")
    assert store.is_occupied(str(tmp_path / "file"))
    assert store.is_occupied(str(tmp_path))


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ("s3://bucket/a.zarr/", "s3://bucket/a.zarr"),
        ("S3://Bucket/a.zarr/", "s3://Bucket/a.zarr"),
        ("file:///data/a.zarr", "/data/a.zarr"),
        ("File:///data/a.zarr", "/data/a.zarr"),
        ("/data/../data/a.zarr///", "/data/a.zarr"),
        ("/", "/"),
    ],
)
def test_locations_lose_their_trailing_slashes(given: str, resolved: str) -> None:
    assert store.resolve_location(given) == resolved
    assert store.is_remote(resolved) == given.lower().startswith("s3:")


def test_joining_leaves_out_empty_parts() -> None:
    assert store.join("/a", "", "b", "c/0") == "/a/b/c/0"
    assert store.join("s3://bucket/a", "") == "s3://bucket/a"
