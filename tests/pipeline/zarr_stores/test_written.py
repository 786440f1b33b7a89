"""Checksums are noted as bytes go out, by each process; what is wrong with a note is noticed, not believed."""

import hashlib
import multiprocessing
from pathlib import Path

import numpy as np
import zarr

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.zarr_stores.written import NOTES_NAME, begin_notes, end_notes, note_file, read_notes

SPEC = ArraySpec("a", (8, 8), (4, 4), (2, 2), "uint8", "yx")


def write_quarter(location: str, index: int) -> None:
    y, x = divmod(index, 2)
    array = store.open_array(location, "labels/a", writable=True)
    store.write_box(array, (slice(4 * y, 4 * y + 4), slice(4 * x, 4 * x + 4)), np.full((4, 4), index + 1, np.uint8))


def on_disk(folder: Path) -> dict[str, tuple[int, str]]:
    files = [path for path in folder.rglob("*") if path.is_file() and NOTES_NAME not in path.parts]
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in files
    }


def test_what_several_processes_write_is_noted_with_its_checksum(tmp_path: Path) -> None:
    begin_notes(tmp_path, {})
    store.create_group(str(tmp_path), "labels", [SPEC], {})
    workers = [
        multiprocessing.get_context("fork").Process(target=write_quarter, args=(str(tmp_path), index))
        for index in (1, 2, 3)
    ]
    write_quarter(str(tmp_path), 0)
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    shards = {key: digest for key, digest in on_disk(tmp_path).items() if "/c/" in key}
    noted = read_notes(tmp_path)
    assert len(shards) == 4
    assert {key: noted[key] for key in shards} == shards
    assert len(list((tmp_path / NOTES_NAME).iterdir())) == 4
    end_notes(tmp_path)
    assert not (tmp_path / NOTES_NAME).exists()


def test_nothing_is_noted_without_the_folder_and_none_of_what_lasts_only_as_long_as_the_run(tmp_path: Path) -> None:
    store.create_group(str(tmp_path), "labels", [SPEC], {})
    write_quarter(str(tmp_path), 0)
    assert not (tmp_path / NOTES_NAME).exists()
    begin_notes(tmp_path, {})
    store.create_group(str(tmp_path), "labels/a-instances/work", [SPEC], {})
    assert not read_notes(tmp_path)


def test_notes_that_are_cut_or_contradict_each_other_are_left_out(tmp_path: Path) -> None:
    begin_notes(tmp_path, {"known": (1, "a" * 64), "twice": (1, "b" * 64)})
    (tmp_path / NOTES_NAME / "other.tsv").write_text(f"\ntwice\t1\t{'c' * 64}\n\ncut\t12\t{'d' * 30}")
    (tmp_path / NOTES_NAME / "third.tsv").write_bytes(b"\xff\x00\t\t\n\n\nknown\t1\t" + b"a" * 64 + b"\n")
    assert read_notes(tmp_path) == {"known": (1, "a" * 64)}


def test_a_plain_file_is_noted_in_the_nearest_output_above_it(tmp_path: Path) -> None:
    outer, inner = tmp_path, tmp_path / "inner"
    begin_notes(outer, {})
    begin_notes(inner, {})
    note_file(inner / "tables" / "x.parquet", b"abc")
    assert read_notes(inner) == {"tables/x.parquet": (3, hashlib.sha256(b"abc").hexdigest())}
    assert not read_notes(outer)


def test_arrays_are_written_with_the_checksum_of_zstd(tmp_path: Path) -> None:
    store.create_group(str(tmp_path), "labels", [SPEC], {})
    array = zarr.open_array(str(tmp_path), path="labels/a", mode="r")
    assert [codec.to_dict()["configuration"]["checksum"] for codec in array.compressors] == [True]
