"""Images and outputs in an object store: a real S3 server on this machine, reached as any other through fsspec."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from segment_slide.pipeline.storage.fingerprint import fingerprint
from segment_slide.pipeline.storage.image import describe_image
from tests.flows.support import (
    finish,
    noise,
    run_here,
    run_installed,
    shards,
    start,
    tree,
    write_array,
    write_model,
    write_ome,
)

boto3 = pytest.importorskip("boto3")
moto_server = pytest.importorskip("moto.server")
pytest.importorskip("s3fs")

SHAPE, BLOCK = (100, 130), 64
N_BLOCKS = 2 * 3
LABELS = "labels/segmentation/0"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto_server.ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def environment(endpoint) -> dict[str, str]:
    """What tells any S3 client where to go; workers must get it too."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture
def _environment(environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def bucket(endpoint) -> Any:
    """A bucket called "slides", seen by a client of its own."""
    found = boto3.resource(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    ).Bucket("slides")
    found.create()
    return found


def upload(bucket: Any, folder: Path, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            bucket.upload_file(str(path), f"{prefix}/{path.relative_to(folder)}")


def download(bucket: Any, prefix: str, folder: Path) -> Path:
    for item in bucket.objects.filter(Prefix=f"{prefix}/"):
        path = folder / item.key.removeprefix(f"{prefix}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(item.get()["Body"].read())
    return folder


def times(bucket: Any, prefix: str) -> dict[str, Any]:
    return {item.key: (item.last_modified, item.e_tag) for item in bucket.objects.filter(Prefix=f"{prefix}/")}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "cells.safetensors")


@pytest.fixture(scope="module")
def slide(bucket, tmp_path_factory) -> Path:
    """The same image here and as s3://slides/slide.zarr."""
    path = write_ome(tmp_path_factory.mktemp("slide") / "slide.zarr", noise(*SHAPE), "yx", scale=(0.5, 0.5))
    upload(bucket, path, "slide.zarr")
    return path


def arguments(slide: object, model: Path, output: object) -> list[object]:
    return ["segment", slide, "-m", model, "-o", output, "--block", BLOCK, "--precision", "float32"]


@pytest.mark.slow
def test_a_run_from_and_to_s3_equals_a_local_one_and_goes_on_where_shards_are_missing(
    slide, bucket, environment, model, tmp_path
):
    local = tmp_path / "local.ome.zarr"
    assert run_installed(*arguments(slide, model, local)).exit_code == 0
    remote = arguments("s3://slides/slide.zarr", model, "s3://slides/out.ome.zarr")
    outcome = run_installed(*remote, **environment)
    assert outcome.exit_code == 0, outcome
    assert outcome.err == ""

    first = download(bucket, "out.ome.zarr", tmp_path / "first.ome.zarr")
    assert len(shards(first / LABELS)) == N_BLOCKS
    np.testing.assert_array_equal(*(zarr.open_array(out / LABELS, mode="r")[...] for out in (local, first)))
    different = {path for path, digest in tree(local).items() if tree(first).get(path) != digest}
    assert different == {"labels/segmentation/zarr.json"}  # it says where the input lies

    deleted = {f"out.ome.zarr/{LABELS}/c/{index}" for index in ("0/0", "1/2")}
    before = times(bucket, "out.ome.zarr")
    assert deleted < set(before)
    bucket.delete_objects(Delete={"Objects": [{"Key": key} for key in deleted]})
    again = run_installed(*remote, **environment)
    assert again.exit_code == 0, again
    assert f"Went on: {N_BLOCKS - 2} of {N_BLOCKS} blocks were already done." in again.out
    after = times(bucket, "out.ome.zarr")
    assert {key for key in after if after[key] != before[key]} <= {*deleted, "out.ome.zarr/_manifest/files.json"}
    assert tree(download(bucket, "out.ome.zarr", tmp_path / "second.ome.zarr")) == tree(first)


REFUSED = {
    "input bucket": ("s3://no-such-bucket/slide.zarr", "s3://slides/other.ome.zarr", "no-such-bucket"),
    "input key": ("s3://slides/nowhere.zarr", "s3://slides/other.ome.zarr", "nowhere.zarr is not Zarr"),
    "output is the input": ("s3://slides/slide.zarr", "s3://slides/slide.zarr", "lie in each other"),
    "output in the input": ("s3://slides/slide.zarr", "s3://slides/slide.zarr/out", "lie in each other"),
    "output is foreign": ("s3://slides/slide.zarr", "s3://slides/photos", "not an output of segment-slide"),
}


@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize(("source", "output", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_in_the_store_is_refused_and_the_store_is_left_as_it_was(
    source, output, says, slide, bucket, model
):
    bucket.put_object(Key="photos/holiday.jpg", Body=b"\xff\xd8")
    before = times(bucket, "")
    check_refused(run_here(*arguments(source, model, output)), says)
    assert times(bucket, "") == before


@pytest.mark.usefixtures("_environment")
def test_a_missing_output_bucket_is_refused(slide, model):
    outcome = run_here(*arguments(slide, model, "s3://no-such-bucket/out.ome.zarr"))
    check_refused(outcome, "no-such-bucket/out.ome.zarr")


@pytest.mark.usefixtures("_environment")
def test_a_changed_object_is_noticed(bucket, model, tmp_path):
    """The fingerprint rests on the store's own marks."""
    upload(bucket, write_array(tmp_path / "a.zarr", noise(40, 50), chunk=20), "a.zarr")
    first = fingerprint(describe_image("s3://slides/a.zarr", axes="yx"))
    assert fingerprint(describe_image("s3://slides/a.zarr", axes="yx")) == first
    bucket.put_object(Key="a.zarr/c/0/0", Body=b"other")
    assert fingerprint(describe_image("s3://slides/a.zarr", axes="yx")) != first


def test_a_server_that_is_not_there_is_refused_with_a_sentence(slide, model, environment, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = {**environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{unused.getsockname()[1]}"}
        requests = [
            arguments("s3://slides/slide.zarr", model, tmp_path / "out.ome.zarr"),
            arguments(slide, model, "s3://slides/out.ome.zarr"),
        ]
        for process in [start(*request, **nobody, AWS_MAX_ATTEMPTS="1") for request in requests]:
            check_refused(finish(process), "cannot be reached")
    assert list(tmp_path.iterdir()) == []


def check_refused(outcome, says: str) -> None:
    assert outcome.exit_code == 2, outcome
    assert "Traceback" not in outcome.err
    assert says in outcome.err
