"""What the version before this one left is read and gone on with: same command, same pixels, nothing done twice.

``v0.1.0.tar.xz`` holds inputs, results of undisturbed runs (``done/``) and the same runs killed in the middle
(``half/``); `tests/previous_version/make_fixture.py` says which, and made them. It is unpacked twice: once to be worked
in, and once to be compared with.

Records name places of the machine that made them, below one folder. Commands are run with relative paths, and where a
record's own path is followed (`measure` looks for the image that was segmented), the unpacked copy has to say where
that is now: the folder's name is replaced in all ``zarr.json`` that hold records. Times of files are restored to the
nanosecond, since fingerprints hold them.
"""

import contextlib
import copy
import csv
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
import pytest
import torch
import zarr
from safetensors.numpy import load_file

import segment_slide.flows.instances
import segment_slide.flows.measure
import segment_slide.flows.segment
import segment_slide.flows.training_data
import segment_slide.flows.weight_maps
from segment_slide.pipeline.storage.record import Results, code_version
from segment_slide.unet.device import describe_processor
from tests.flows.support import run_here, snapshot

ARCHIVE = Path(__file__).with_name("v0.1.0.tar.xz")
ATTRIBUTE = "segment_slide"
DRAWN = (".png", ".html")  # drawn again by whoever goes on, and not in the archive
LOCK = ".segment-slide.lock"
NOTES = (".done.json", ".failed.json", ".begun.json")  # of nights, with times
OBJECTS = (
    "labels/segmentation-instances",
    "labels/zarr.json",
    "tables",
)  # what a store gains by `instances`, `measure`
MORE = "; run the same command again to go on"


@dataclass(frozen=True)
class Site:
    """The unpacked fixture.

    Parameters
    ----------
    folder : Path
        To be worked in.
    expected : Path
        The same as it was unpacked.
    facts : dict
        What made it: version, processor, libraries; arguments of its commands.
    """

    folder: Path
    expected: Path
    facts: dict[str, Any]

    @property
    def rounds_alike(self) -> bool:
        """Whether this machine's floating-point numbers are those of the one that made the fixture."""
        return (self.facts["torch"], self.facts["processor"]) == (torch_version(), processor())

    @property
    def packs_alike(self) -> bool:
        """Whether equal pixels are equal bytes: libraries compress as those that made the fixture did."""
        return all(importlib.metadata.version(name) == found for name, found in self.facts["libraries"].items())


def torch_version() -> str:
    return importlib.metadata.version("torch").partition("+")[0]


def processor() -> str:
    return describe_processor(torch.device("cpu"))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Site:
    folder, expected = (tmp_path_factory.mktemp(name) for name in ("site", "expected"))
    for place in (folder, expected):
        unpack(place)
    facts = json.loads((folder / "made.json").read_text())
    move_records(folder, facts["folder"])
    # The kind of processor and torch's version decide the last bits of scores, so a run is not gone on with on another
    # one, by design. What is tested here is another version of this package on the same machine, so the records of the
    # copy get those of this machine. Nothing else is changed.
    change_records(folder, processor(), torch_version())
    return Site(folder, expected, facts)


@pytest.fixture(autouse=True)
def here(site, monkeypatch):
    """Work in the fixture, and let blocks run in this process."""
    monkeypatch.chdir(site.folder)
    for flow in ("instances", "measure", "segment", "training_data", "weight_maps"):
        module = getattr(segment_slide.flows, flow)
        monkeypatch.setattr(module, "open_cluster", lambda *_, **__: contextlib.nullcontext())


# -- unpacking ---------------------------------------------------------------------------------------------------


def unpack(folder: Path) -> None:
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(folder, filter="data")
        for member in tar:
            if member.isfile():
                seconds, _, nanoseconds = member.pax_headers["mtime"].partition(".")
                time_ns = int(seconds) * 10**9 + int(nanoseconds)
                os.utime(folder / member.name, ns=(time_ns, time_ns))


def records(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """All metadata that hold a record."""
    for path in sorted(folder.rglob("zarr.json")):
        content = json.loads(path.read_text())
        if content.get("attributes", {}).get(ATTRIBUTE):
            yield path, content


def rewrite(path: Path, text: str) -> None:
    """Another text in a file, at the same time."""
    time_ns = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(time_ns, time_ns))


def move_records(folder: Path, recorded: str) -> None:
    """Let records name places below the folder that they lie in now."""
    for path, _ in records(folder):
        text = path.read_text()
        if recorded in text:
            rewrite(path, text.replace(recorded, str(folder)))


def change_records(folder: Path, processor: str, torch_version: str) -> None:
    """Write another processor and torch into all records, and the identity of those into what was made from them."""
    originals = dict(records(folder))
    found, renamed = copy.deepcopy(originals), dict[str, str]()
    for _ in range(4):  # classes, ids made from them, tables made from these
        for path, original in originals.items():
            text = json.dumps(original)
            for old, new in renamed.items():
                text = text.replace(old, new)
            changed = json.loads(text)
            record = changed["attributes"][ATTRIBUTE]
            if "processor" in record.get("parameters", {}):
                record["parameters"]["processor"] = processor
                record["code"]["torch"] = torch_version
            renamed[identify(original["attributes"][ATTRIBUTE])] = identify(record)
            found[path] = changed
    for path, content in found.items():
        if content != originals[path]:
            rewrite(path, json.dumps(content))


def identify(record: dict[str, Any]) -> str:
    """What version 0.1.0 identified a record by: all of it, but for where things lie."""
    kept = copy.deepcopy(record)
    for section, place in (("input", "location"), ("model", "path")):
        kept.get(section, {}).pop(place, None)
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


# -- comparing ---------------------------------------------------------------------------------------------------


def pixels(folder: Path) -> dict[str, tuple[str, int]]:
    """Bytes and time of every file that is neither metadata nor made anew by each run: chunks, parts of tables."""
    files = {name: found for name, found in snapshot(folder).items() if (folder / name).is_file()}
    return {name: found for name, found in files.items() if "/c/" in name or name.endswith(".parquet")}


def files_of(folder: Path, without: tuple[str, ...]) -> set[str]:
    """Files of both versions: the version before wrote no manifests."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    names = {name for name in names if "_manifest" not in name}
    return {name for name in names if not name.startswith(without) and not name.endswith((*DRAWN, *NOTES))}


def check_same(site: Site, made: str, *, like: str, without: tuple[str, ...] = ()) -> None:
    """Compare what was gone on with with the result of an undisturbed run.

    Metadata are compared but for places, times and versions. Arrays are compared value by value: integers exactly, but
    for probabilities, which may differ by 1 where this machine rounds otherwise; and byte by byte where it packs alike.

    Parameters
    ----------
    site : Site
        Where.
    made, like : str
        Folders in it.
    without : tuple of str
        Beginnings of the names that are left out.
    """
    found, expected = site.folder / made, site.expected / like
    names = files_of(expected, without)
    assert files_of(found, without) == names
    for name in sorted(names):
        if name.endswith("zarr.json"):
            metadata = json.loads((expected / name).read_text())
            assert essence(site, json.loads((found / name).read_text())) == essence(site, metadata), name
            if metadata["node_type"] == "array":
                group = str(Path(name).parent)
                check_values(site, zarr.open_array(found / group), zarr.open_array(expected / group), group)
        elif name.endswith(".parquet"):
            check_tables(site, found / name, expected / name)
        elif name.endswith(".csv"):
            check_numbers(site, read_csv(found / name), read_csv(expected / name), name)
        elif "/c/" in name and site.rounds_alike and site.packs_alike and has_no_checksum(found / name):
            assert (found / name).read_bytes() == (expected / name).read_bytes(), name


def has_no_checksum(shard: Path) -> bool:
    """Whether a shard's array was begun by the version before, and so has its bytes."""
    array = next(folder for folder in shard.parents if (folder / "zarr.json").exists())
    return '"checksum": true' not in (array / "zarr.json").read_text()


def essence(site: Site, value: Any) -> Any:
    """Metadata without what differs between two runs: places, fingerprints (old ones have times), versions."""
    if isinstance(value, dict):
        drop = {"checksum", "code", "code_version", "earlier_fingerprint", "location", "processor", "results"}
        return {key: essence(site, item) for key, item in value.items() if key not in drop}
    if isinstance(value, list):
        return [essence(site, item) for item in value]
    if not isinstance(value, str):
        return value
    if value in (site.facts["version"], code_version()):
        return "version"
    value = value.replace(str(site.folder), site.facts["folder"])
    return re.sub(r"\b([a-z-]+-sha256:)?[0-9a-f]{64}\b", "fingerprint", value)


def check_values(site: Site, found: Any, expected: Any, name: str) -> None:
    values, wanted = np.asarray(found[...]), np.asarray(expected[...])
    assert (values.dtype, values.shape) == (wanted.dtype, wanted.shape), name
    if "probability/" in name and not site.rounds_alike:
        assert np.abs(values.astype(int) - wanted.astype(int)).max() <= 1, name
    else:
        check_numbers(site, values, wanted, name)


def check_numbers(site: Site, values: np.ndarray, wanted: np.ndarray, name: str) -> None:
    """Equal; real numbers nearly, where this machine rounds otherwise."""
    if site.rounds_alike or wanted.dtype.kind in "bui":
        np.testing.assert_array_equal(values, wanted, name)
    else:
        np.testing.assert_allclose(values, wanted, rtol=0.01, atol=0.01, err_msg=name)


def check_tables(site: Site, found: Path, expected: Path) -> None:
    values, wanted = (pyarrow.dataset.dataset(path).to_table().to_pydict() for path in (found, expected))
    assert values.keys() == wanted.keys()
    for column, items in wanted.items():
        numbers = np.asarray(items)
        if numbers.dtype.kind in "biuf":
            check_numbers(site, np.asarray(values[column]), numbers, column)
        else:
            assert values[column] == items, column


def read_csv(path: Path) -> np.ndarray:
    return np.array([list(map(float, row)) for row in list(csv.reader(path.read_text().splitlines()))[1:]])


def check_tensors(site: Site, found: Path, expected: Path) -> None:
    values, wanted = load_file(found), load_file(expected)
    assert values.keys() == wanted.keys()
    for name, tensor in wanted.items():
        check_numbers(site, values[name], tensor, name)


def run(site: Site, place: str, command: str, exit_code: int = 0) -> str:
    """Run a command of the fixture again; what it printed."""
    outcome = run_here(*site.facts[place][command])
    assert outcome.exit_code == exit_code, outcome
    return outcome.out


def gone_on(site: Site, command: str, store: str, done: str, exit_code: int = 0) -> str:
    """Go on with what was killed: what was done is neither made again nor changed, and no lock is left.

    Parameters
    ----------
    site : Site
        Where.
    command : str
        Which.
    store : str
        Folder that it writes into.
    done : str
        Part of the path of the file that a task writes last: it says that the task is done. Others of the same task
        may have been written when the run was killed, and are written again.
    exit_code : int
        To be expected.
    """
    before = {name: found for name, found in pixels(site.folder / store).items() if done in name}
    out = run(site, "half", command, exit_code)
    after = {name: found for name, found in pixels(site.folder / store).items() if done in name}
    assert {name: found for name, found in after.items() if name in before} == before
    assert len(after) > len(before), "nothing was left to do"
    assert not list((site.folder / store).rglob(LOCK))
    return out


# -- the fixture itself ------------------------------------------------------------------------------------------


def test_the_archive_is_of_another_version_and_names_no_place_but_its_own(site):
    assert site.facts["version"] == "0.1.0"
    versions = {
        content["attributes"][ATTRIBUTE].get("code", {}).get("version") for _, content in records(site.expected)
    }
    assert versions == {"0.1.0", None}
    for path, content in records(site.expected):
        places = re.findall(r'"(/[^"]*)"', json.dumps(content))
        assert all(place.startswith(site.facts["folder"]) for place in places), path


@pytest.mark.parametrize("what", ["labels/segmentation/0", "probability/segmentation/0"])
def test_the_comparison_would_notice_a_pixel(site, tmp_path, what):
    made = "done/cells.ome.zarr"
    shutil.copytree(site.expected / made, tmp_path / made)
    copied = replace(site, folder=tmp_path)
    check_same(copied, made, like=made)
    array = zarr.open_array(tmp_path / made / what)
    array[..., 100, 100] = 3 + array[..., 100, 100] % 3
    with pytest.raises(AssertionError):
        check_same(copied, made, like=made)


def test_a_processor_that_is_written_into_records_and_back_changes_nothing(site, tmp_path):
    store = "done/cells.ome.zarr"
    shutil.copytree(site.expected / store, tmp_path / store)
    before = dict(records(tmp_path))
    change_records(tmp_path, "another", "9.9")
    changed = dict(records(tmp_path))
    assert {str(path.parent.relative_to(tmp_path / store)) for path in before if changed[path] != before[path]} == {
        "labels/segmentation",
        "labels/segmentation-instances",
        "probability/segmentation",
        "tables",
    }
    change_records(tmp_path, site.facts["processor"], site.facts["torch"])
    assert dict(records(tmp_path)) == before


# -- what is finished --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "sentences"),
    [
        ("done/slide.ome.zarr", ["200 x 270", "uint8"]),
        ("done/cells.safetensors", ["foreground"]),
        ("done/set.zarr", ["names +first, second"]),
        ("done/samples.zarr", ["36 to learn from, 32 to validate with"]),
        ("done/cells.ome.zarr", ["blocks +20 of 20 done\n", "objects +37", "segment-slide 0.1.0"]),
        ("half/set.zarr", ["not complete +[0-9]+ of 18 blocks .*`segment-slide weight-maps` again"]),
        ("half/samples.zarr", ["not complete +[0-9]+ of 5 files .*`segment-slide training-data` again"]),
        ("half/segment.ome.zarr", [f"[0-9]+ of 20 done{MORE}"]),
        ("half/instances.ome.zarr", [f"[0-9]+ of 20 done{MORE}", f"objects +not all written{MORE}"]),
    ],
)
def test_info_reads_what_the_previous_version_wrote(site, path, sentences):
    """Of the copy that nobody works in."""
    outcome = run_here("info", site.expected / path)
    assert outcome.exit_code == 0, outcome
    lines = "\n".join(line.rstrip() for line in outcome.out.splitlines()) + "\n"
    for sentence in sentences:
        assert re.search(sentence, lines), lines


def test_a_report_is_written_about_a_finished_output(site):
    out = run(site, "done", "report")
    assert "cells.report.html" in out
    page = (site.folder / "done/cells.report.html").read_text()
    assert "<dt>version</dt><dd><code>0.1.0</code>" in page  # what made it; the footer says what wrote the page
    assert "foreground" in page


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("ingest", "0 file(s) written, 12 kept"),
        ("weight-maps", "18, 18 of them done before"),
        ("training-data", "5, 5 of them there before"),
        ("train", "120, 120 of them before"),
        ("segment", "Went on: 20 of 20 blocks were already done."),
        ("instances", "Went on: 20 of 20 blocks were already done."),
        ("measure", "1 of 1 parts of the table were already done."),
    ],
)
def test_a_finished_run_is_left_as_it_is_by_the_same_command(site, command, sentence):
    before = pixels(site.folder / "done")
    assert sentence in run(site, "done", command)
    assert pixels(site.folder / "done") == before
    check_tensors(site, site.folder / "done/cells.safetensors", site.expected / "done/cells.safetensors")


def test_a_night_has_nothing_to_do_with_what_is_segmented_or_set_aside(site):
    before = snapshot(site.folder / "done/outputs")
    out = run(site, "done", "segment-new")
    assert "0 segmented, 0 failed, of 3" in out
    assert re.search("1-truncated.tif +set aside +failed 3 time", out)
    after = snapshot(site.folder / "done/outputs")
    assert {name: after[name] for name in files_of(site.folder / "done/outputs", ())} == {
        name: before[name] for name in files_of(site.expected / "done/outputs", ())
    }


# -- what was killed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "stage"),
    [
        ("ingest", "INGEST"),
        ("weight-maps", "WEIGHT_MAPS"),
        ("training-data", "TRAINING_DATA"),
        ("train", "TRAIN"),
        ("segment", "SEGMENT"),
        ("instances", "INSTANCES"),
        ("measure", "MEASURE"),
    ],
)
def test_a_killed_run_is_not_gone_on_with_by_code_that_gives_other_results(site, monkeypatch, command, stage):
    before = pixels(site.folder / "half")
    monkeypatch.setattr(Results, stage, 2)
    outcome = run_here(*site.facts["half"][command])
    assert outcome.exit_code == 2, outcome
    assert re.search("results: begun with 1.*, now 2", outcome.err), outcome
    assert pixels(site.folder / "half") == before


def test_a_killed_ingest_goes_on(site):
    gone_on(site, "ingest", "half/stack.ome.zarr", "0/c/")
    check_same(site, "half/stack.ome.zarr", like="done/stack.ome.zarr")


def test_killed_weight_maps_go_on(site):
    gone_on(site, "weight-maps", "half/set.zarr", "/weights/c/")
    check_same(site, "half/set.zarr", like="done/set.zarr")


def test_killed_training_data_go_on(site):
    gone_on(site, "training-data", "half/samples.zarr", "/images/c/")
    check_same(site, "half/samples.zarr", like="done/samples.zarr")


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_weights(site):
    out = run(site, "half", "train")
    assert re.search("120, [1-9][0-9]* of them before", out)
    check_same(site, "half/cells.training", like="done/cells.training")
    for name in ("cells.safetensors", "cells.training/state.safetensors"):
        check_tensors(site, site.folder / "half" / name, site.expected / "done" / name)


def test_a_killed_segmentation_goes_on(site):
    out = gone_on(site, "segment", "half/segment.ome.zarr", "labels/segmentation/0/c/")
    assert re.search("Went on: [1-9][0-9]* of 20 blocks were already done", out)
    check_same(site, "half/segment.ome.zarr", like="done/cells.ome.zarr", without=OBJECTS)


@pytest.mark.parametrize("command", ["instances-begun", "instances"])
def test_killed_instances_go_on(site, command):
    """Compared with the copy that `measure` was killed in: nobody disturbed its ids, and it has no page of them yet."""
    gone_on(site, command, f"half/{command}.ome.zarr", "labels/segmentation-instances/0/c/")
    check_same(site, f"half/{command}.ome.zarr", like="half/measure.ome.zarr", without=("tables", LOCK))


def test_a_killed_measurement_goes_on(site):
    gone_on(site, "measure", "half/measure.ome.zarr", "")
    check_same(site, "half/measure.ome.zarr", like="done/cells.ome.zarr")


def test_a_killed_night_goes_on_and_remembers_what_failed(site):
    out = gone_on(site, "segment-new", "half/outputs", "labels/segmentation/0/c/", exit_code=3)
    assert "1-truncated.tif: failed 1 of 3 times" in out
    assert re.search("2-done.tif +done", out)
    assert "3-half.ome.zarr: begun earlier" in out
    assert "1 segmented, 1 failed, of 3" in out
    check_same(site, "half/outputs", like="done/outputs")
    (model,) = (site.folder / "half/outputs").glob("cells-*")
    notes = sorted(str(path.relative_to(model)) for path in model.rglob("*") if path.name.endswith(NOTES))
    assert notes == [
        "1-truncated.tif.ome.zarr.begun.json",
        "1-truncated.tif.ome.zarr.failed.json",
        "2-done.tif.ome.zarr/segment-slide.done.json",
        "3-half.ome.zarr/segment-slide.done.json",
    ]
    assert json.loads((model / notes[1]).read_text())["tries"] == 3


def test_a_killed_run_is_not_gone_on_with_otherwise_than_it_was_begun(site):
    arguments = ["13" if word == 12 else word for word in site.facts["half"]["instances-begun"]]
    outcome = run_here(*arguments)
    assert outcome.exit_code == 2, outcome
    assert "parameters.min_size_px: begun with 12, now 13" in outcome.err
