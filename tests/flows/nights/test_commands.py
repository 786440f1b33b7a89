"""Whole nights as a timer would start them: killed, two at once, in an object store."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from segment_slide.pipeline.nights.notes import DONE_FILE
from segment_slide.pipeline.storage.lock import LOCK_NAME
from tests.flows.nights.support import folder_of, results, write_slide, write_tiff, write_zarr
from tests.flows.support import brake, finish, run_installed, shards, start, wait_until

pytestmark = pytest.mark.slow

SHAPE, BLOCK = (300, 300), 32
LABELS = "labels/segmentation/0"


def arguments(watch: object, outputs: object, model: object, *options: object) -> list[object]:
    sizes = ["--block", BLOCK, "--precision", "float32", "--workers", 1, "--no-measure"]
    return ["segment-new", watch, "-o", outputs, "-m", model, "--stable-minutes", 0, *sizes, *options]


@pytest.fixture(scope="module")
def watch(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("night") / "watch"
    write_zarr(folder / "a.ome.zarr", shape=SHAPE)
    write_slide(folder / "b.svs", shape=SHAPE)
    return folder


@pytest.fixture(scope="module")
def undisturbed(watch, model, tmp_path_factory) -> dict[str, str]:
    outputs = tmp_path_factory.mktemp("undisturbed") / "outputs"
    outcome = run_installed(*arguments(watch, outputs, model))
    assert outcome.exit_code == 0, outcome
    return results(outputs)


def n_shards(outputs: Path, name: str) -> int:
    return sum(len(shards(folder / name / LABELS)) for folder in outputs.glob("cells-*"))


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_nights_that_are_killed_end_with_the_bytes_of_an_undisturbed_one(watch, model, tmp_path, undisturbed):
    outputs = tmp_path / "outputs"
    kept: dict[Path, int] = {}
    for name in ("a.ome.zarr", "b.svs.ome.zarr"):
        process = start(*arguments(watch, outputs, model), **brake(tmp_path / "brake", f"{name}/{LABELS}/c", 3))
        wait_until(lambda: n_shards(outputs, name) >= 3, process)  # noqa: B023 - called within the turn
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not list(outputs.rglob("*.failed.json"))
        assert {path: times(outputs)[path] for path in kept} == kept
        kept = times(folder_of(outputs) / "a.ome.zarr") if name[0] == "b" else {}
    assert (folder_of(outputs) / "a.ome.zarr" / DONE_FILE).exists()
    assert not (folder_of(outputs) / "b.svs.ome.zarr" / DONE_FILE).exists()
    last = run_installed(*arguments(watch, outputs, model))
    assert last.exit_code == 0, last
    assert "b.svs: begun earlier" in last.out
    assert "1 segmented, 0 failed, of 2" in last.out
    assert {path: times(outputs)[path] for path in kept} == kept
    assert results(outputs) == undisturbed


def test_a_night_that_is_terminated_goes_on_the_next_time_and_counts_no_failure(watch, model, tmp_path, undisturbed):
    outputs = tmp_path / "outputs"
    process = start(*arguments(watch, outputs, model), **brake(tmp_path / "brake", f"a.ome.zarr/{LABELS}/c", 3))
    wait_until(lambda: n_shards(outputs, "a.ome.zarr") >= 3, process)
    process.terminate()
    ended = finish(process)
    assert ended.exit_code == 143, ended
    assert not list(outputs.rglob("*.failed.json"))
    assert not list(outputs.rglob(LOCK_NAME))
    assert run_installed(*arguments(watch, outputs, model)).exit_code == 0
    assert results(outputs) == undisturbed


def test_two_nights_at_once_segment_nothing_twice(watch, model, tmp_path, undisturbed):
    outputs = tmp_path / "outputs"
    first = start(*arguments(watch, outputs, model), **brake(tmp_path / "brake", f"a.ome.zarr/{LABELS}/c", 3))
    wait_until((outputs / LOCK_NAME).exists, first)
    second = run_installed(*arguments(watch, outputs, model))
    assert first.poll() is None
    (tmp_path / "brake").unlink()
    assert second.exit_code == 0, second
    assert "Nothing was done: another night is at work in" in second.out
    outcome = finish(first)
    assert outcome.exit_code == 0, outcome
    assert "2 segmented, 0 failed, of 2" in outcome.out
    assert results(outputs) == undisturbed


# -- an object store -----------------------------------------------------------------------------------------------


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    moto_server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = moto_server.ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    httpx.post(f"http://{host}:{port}/moto-api/reset").raise_for_status()  # its buckets outlive the server
    yield {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }
    server.stop()


def test_a_night_from_and_to_an_object_store_segments_stores_once_and_says_what_it_cannot_read(
    environment, model, tmp_path
):
    boto3 = pytest.importorskip("boto3")
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    bucket = boto3.resource("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], **keys).Bucket("scans")
    bucket.create()
    write_zarr(tmp_path / "a/slide.ome.zarr")
    write_tiff(tmp_path / "b.tif")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            bucket.upload_file(str(path), f"new/{path.relative_to(tmp_path)}")
    request = arguments("s3://scans/new", "s3://scans/out", model, "--no-instances")
    first = run_installed(*request, **environment)
    assert first.exit_code == 3, first  # a file that cannot be read from there: somebody has to know, once
    assert "1 segmented, 0 failed, of 2" in first.out
    assert "cannot be converted from a URL; copy it first" in first.out
    written = {item.key: item.e_tag for item in bucket.objects.filter(Prefix="out/")}
    assert sum(key.endswith(DONE_FILE) for key in written) == 1
    second = run_installed(*request, **environment)
    assert (second.exit_code, "0 segmented, 0 failed, of 2" in second.out) == (0, True), second
    assert {item.key: item.e_tag for item in bucket.objects.filter(Prefix="out/")} == written
