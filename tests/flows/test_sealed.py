"""Each command leaves a manifest of all that it made; run again on sound files, it touches none of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from segment_slide.flows.ingest import ingest_image
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.manifest.compare import compare_files, find_manifests
from segment_slide.pipeline.manifest.homes import is_sealed
from segment_slide.pipeline.zarr_stores.written import NOTES_NAME
from tests.flows.support import noise, run_without_workers, snapshot, write_array, write_model, write_segmentation

FIXED = ("--axes", "yx", "--block", 64)


def check_sealed(output: Path, home: str = "") -> set[str]:
    """Every file below a home is listed, with the bytes that it has; no notes are left. Returns what is sealed."""
    manifests = find_manifests(str(output))
    assert home in manifests, list(manifests)
    files = {path.relative_to(output / home).as_posix() for path in (output / home).rglob("*") if path.is_file()}
    assert set(manifests[home].files) == files - {"_manifest/files.json"}
    assert not compare_files(str(output / home), manifests[home])
    assert not list(output.rglob(NOTES_NAME))
    return set(manifests[home].folders)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("slide")
    return write_array(folder / "slide.zarr", noise(100, 130)), write_model(folder / "model.safetensors")


def run(*arguments: object) -> None:
    outcome = run_without_workers(*arguments)
    assert outcome.exit_code == 0, outcome


@pytest.mark.slow
def test_an_output_of_every_stage_is_sealed_and_a_second_run_touches_nothing(
    slide: tuple[Path, Path], tmp_path: Path
) -> None:
    image, model = slide
    output = tmp_path / "out.ome.zarr"
    arguments = ("segment", image, "-m", model, "-o", output, *FIXED, "--probabilities", "uint8", "--measure")
    run(*arguments)
    labels = {f"labels/segmentation{end}" for end in ("", "-instances")}
    folders = labels | {"probability/segmentation", "tables/segmentation-instances.parquet"}
    assert check_sealed(output) == folders
    assert all(is_sealed(str(output), folder) for folder in folders)
    before = snapshot(output)
    run(*arguments)
    after = snapshot(output)
    reports = {name for name in after if name.endswith((".html", ".png"))}
    assert {name for name in before if before[name][0] != after[name][0]} <= reports
    assert "_manifest/files.json" in before
    zarr.open_group(output).members()  # Zarr does not complain of what it finds: warnings are errors


@pytest.mark.slow
def test_a_store_of_another_tool_gets_manifests_only_in_our_folders(tmp_path: Path) -> None:
    cells = (noise(100, 130) > 200).astype(np.uint8)
    output = write_segmentation(tmp_path / "cells.ome.zarr", cells, scale=(0.5, 0.5))
    root = json.loads((output / "zarr.json").read_text())
    root["attributes"].pop("segment_slide", None)
    (output / "zarr.json").write_text(json.dumps(root))
    theirs = snapshot(output)
    run("instances", output, "--in-place", "--block", 32)
    run("measure", output, "--no-image")
    assert not (output / "_manifest").exists()
    assert check_sealed(output, "labels/segmentation-instances") == {""}
    assert check_sealed(output, "tables/segmentation-instances.parquet") == {""}
    kept = {name for name in theirs if "/c/" in name}
    assert kept
    assert {name: snapshot(output)[name] for name in kept} == {name: theirs[name] for name in kept}


def test_an_image_is_sealed_and_each_damage_to_it_is_mended_by_the_same_command(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(300, 300), photometric="minisblack")
    output = tmp_path / "a.ome.zarr"
    arguments = [tmp_path / "a.tif"], str(output), IngestOptions(chunk=64, shard=128)
    ingest_image(*arguments)
    check_sealed(output)
    before = snapshot(output)
    ingest_image(*arguments)
    assert snapshot(output) == before
    first, second = (output / "0/c" / place for place in ("0/0", "0/1"))
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0][:-9])
    ingest_image(*arguments)
    assert (first.read_bytes(), second.read_bytes()) == contents
    check_sealed(output)
