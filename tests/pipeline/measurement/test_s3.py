"""A table beside instances in an object store: a real S3 server on this machine, reached through fsspec."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pytest

from tests.flows.support import noise
from tests.pipeline.measurement.support import draw_objects, measure, write_store

boto3 = pytest.importorskip("boto3")
moto_server = pytest.importorskip("moto.server")
pytest.importorskip("s3fs")

SHAPE = (61, 75)
SCRIPT = """
from segment_slide.flows.requests import MeasureRequest, Workers
from segment_slide.flows.measure import measure_objects
if __name__ == "__main__":
    report = measure_objects(MeasureRequest("s3://measured/out.ome.zarr", "cells", rows=20, workers=Workers(1)))
    print(report.n_parts_done_before, report.n_parts)
"""


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    server = moto_server.ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }
    server.stop()


def contents(bucket: Any) -> dict[str, bytes]:
    prefix = "out.ome.zarr/tables/"
    return {item.key.removeprefix(prefix): item.get()["Body"].read() for item in bucket.objects.filter(Prefix=prefix)}


@pytest.mark.slow
def test_a_table_in_an_object_store_is_that_of_a_local_one(tmp_path, environment):
    local = write_store(tmp_path, draw_objects(SHAPE), (32, 40), image=noise(*SHAPE))
    bucket = boto3.resource(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    ).Bucket("measured")
    bucket.create()
    for file in (path for path in Path(local).rglob("*") if path.is_file()):
        bucket.upload_file(str(file), f"out.ome.zarr/{file.relative_to(local)}")
    (tmp_path / "script.py").write_text(SCRIPT)

    def run() -> str:
        command = [sys.executable, str(tmp_path / "script.py")]
        settings = os.environ | environment | {"PYTHONPATH": str(Path(__file__).parents[3])}
        done = subprocess.run(command, check=False, env=settings, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run() == "0 2"
    first = contents(bucket)
    parts = [f"cells-instances.parquet/part-0000{number}.parquet" for number in (0, 1)]
    assert set(first) == {"zarr.json", "cells-instances.html", "cells-instances.png", *parts}
    bucket.Object(f"out.ome.zarr/tables/{parts[1]}").delete()
    assert run() == "1 2"
    assert contents(bucket) == first
    expected = measure(local, rows=20)
    for part in parts:
        (tmp_path / Path(part).name).write_bytes(first[part])
    found = pyarrow.dataset.dataset([str(tmp_path / Path(part).name) for part in parts]).to_table()
    assert found.column_names == list(expected)
    for name, values in expected.items():
        assert found[name].to_pylist() == values.tolist()
