"""Stores in an object store are served and exported without credentials in the browser: a real S3 server."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.served_files.remote_files import RemoteFiles
from segment_slide.pipeline.viewer.export import export
from segment_slide.pipeline.viewer.server import ViewServer, serve
from tests.flows.support import noise, tree, write_ome
from tests.pipeline.viewer.site import ask, below, site_of

boto3 = pytest.importorskip("boto3")
moto_server = pytest.importorskip("moto.server")
pytest.importorskip("s3fs")


@pytest.fixture(scope="module")
def _s3() -> Iterator[None]:
    server = moto_server.ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("NO_PROXY", "127.0.0.1")
        # said as an option, too: fsspec keeps file systems by their options, and other tests have another server
        patch.setitem(fsspec.config.conf, "s3", {"endpoint_url": f"http://{host}:{port}"})
        yield
    server.stop()


@pytest.fixture(scope="module")
def slide(_s3, tmp_path_factory) -> Path:
    """The same image here and as s3://viewed/slide.ome.zarr, beside what must not be had."""
    path = write_ome(tmp_path_factory.mktemp("slide") / "slide.ome.zarr", noise(100, 130), "yx", n_levels=2)
    bucket = boto3.resource("s3").Bucket("viewed")
    bucket.create()
    for file in path.rglob("*"):
        if file.is_file():
            bucket.upload_file(str(file), f"slide.ome.zarr/{file.relative_to(path)}")
    for secret in ("secret.txt", "slide.ome.zarr2/secret", "slide.ome.zarr/tables/private"):
        bucket.put_object(Key=secret, Body=b"secret")
    return path


@pytest.fixture(scope="module")
def server(slide) -> Iterator[ViewServer]:
    with serve(site_of("s3://viewed/slide.ome.zarr")) as server:
        yield server


def test_objects_and_parts_of_them_are_served_as_they_are(server, slide):
    for path, digest in tree(slide).items():
        assert ask(server, below(server, f"data/0/{path}")).body == (slide / path).read_bytes(), (path, digest)
    content = (slide / "0/c/0/0").read_bytes()
    target, size = below(server, "data/0/0/c/0/0"), len(content)
    for header, part in (("0-9", content[:10]), ("5-", content[5:]), ("-7", content[-7:]), ("3-3", content[3:4])):
        answer = ask(server, target, Range=f"bytes={header}")
        assert (answer.status, answer.body) == (206, part)
        assert answer.headers["Content-Range"].endswith(f"/{size}")
    assert ask(server, target, Range=f"bytes={size}-").status == 416
    tag = ask(server, target, "HEAD").headers["Etag"]
    assert ask(server, target, If_None_Match=tag).status == 304


@pytest.mark.parametrize(
    "path",
    ["0/c/9/9", "0", "0/", "../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt", "../slide.ome.zarr2/secret"],
)
def test_what_is_missing_or_outside_is_not_found(path, server):
    assert ask(server, below(server, f"data/0/{path}")).status == 404
    assert ask(server, below(server, "data/0/zarr.json")).status == 200


def test_a_new_object_is_seen_at_once(server, slide):
    bucket, key = boto3.resource("s3").Bucket("viewed"), "slide.ome.zarr/0/c/0/new"
    target = below(server, "data/0/0/c/0/new")
    assert ask(server, target).status == 404
    bucket.put_object(Key=key, Body=b"first")
    first = ask(server, target)
    bucket.put_object(Key=key, Body=b"again")
    again = ask(server, target, If_None_Match=first.headers["Etag"])
    bucket.delete_objects(Delete={"Objects": [{"Key": key}]})
    assert (first.body, again.body) == (b"first", b"again")
    assert ask(server, target).status == 404


def test_an_export_takes_the_levels_along(slide, tmp_path):
    export(site_of("s3://viewed/slide.ome.zarr"), tmp_path / "out", hard_links=True)
    assert tree(tmp_path / "out/v/view/data/0") == tree(slide)


def test_a_store_that_cannot_be_read_is_no_background(monkeypatch, caplog):
    class NoCredentialsError(Exception):
        """A back end's own."""

    class Broken:
        def info(self, path):
            raise NoCredentialsError("Unable to locate credentials")

        def find(self, path, detail):
            raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url, **_: (Broken(), url.partition("://")[2]))
    with serve(site_of("s3://viewed/slide.ome.zarr")) as server:
        assert ask(server, below(server, "data/0/0/c/0/0")).status == 500
    assert "viewed/slide.ome.zarr/0/c/0/0 cannot be read: Unable to locate credentials" in caplog.text
    with pytest.raises(InputError, match=r"cannot be read: Unable to locate credentials"):
        list(RemoteFiles("s3://viewed/slide.ome.zarr").walk(""))
