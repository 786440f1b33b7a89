"""The manifest's text: equal for equal outputs, and no flipped bit in it goes unnoticed."""

from pathlib import Path

import pytest

from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.manifest.manifest import FILE, Digest, Manifest, read_manifest, write_manifest
from segment_slide.pipeline.storage import store

SMALL = Manifest({"b/c/0": Digest.of(b"1"), "a": Digest.of(b""), 'ä"\udce4': Digest.of(b"22")}, ["b", ""])


def test_the_text_is_sorted_has_one_line_a_file_and_comes_back() -> None:
    text = SMALL.to_bytes()
    assert [line.split(b'"')[1] for line in text.splitlines()[2:4]] == [b"a", b"b/c/0"]
    assert text == Manifest(dict(reversed(SMALL.files.items())), ["", "b"]).to_bytes()
    assert Manifest.from_bytes(text, "x") == SMALL
    assert Manifest.from_bytes(Manifest().to_bytes(), "x") == Manifest()


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    text = SMALL.to_bytes()
    damaged = [text[:at] for at in range(len(text))]
    damaged += [
        text[:at] + bytes([text[at] ^ 1 << bit]) + text[at + 1 :] for at in range(len(text)) for bit in range(8)
    ]
    for content in damaged:
        with pytest.raises(OutputError, match="x is damaged or not a manifest"):
            Manifest.from_bytes(content, "x")


@pytest.mark.parametrize("key", ["../a", "/etc/passwd", "a/../../b", "a//b", "a\\b", ""])
def test_a_path_that_leaves_the_output_is_refused(key: str) -> None:
    with pytest.raises(OutputError, match="no path inside the output"):
        Manifest.from_bytes(Manifest({key: Digest.of(b"")}).to_bytes(), "x")


def test_folders_are_sealed_and_taken_out_one_by_one() -> None:
    both = Manifest({"a/x": Digest.of(b""), "ab/y": Digest.of(b""), "z": Digest.of(b"")}, ["a", "ab"])
    assert both.is_sealed("a")
    assert not both.is_sealed("a/x")
    rest = both.without(["a"], ["z"])
    assert (list(rest.files), rest.folders) == (["ab/y"], ("ab",))
    assert not rest.is_sealed("a")
    assert not Manifest({}, ["a"]).is_sealed("a")  # a folder without any file is none
    assert rest.joined(both) == both


def test_it_makes_its_folder_a_group_only_in_a_zarr_group(tmp_path: Path) -> None:
    store.create_group(str(tmp_path / "zarr"), "", [], {})
    for name in ("zarr", "plain"):
        (tmp_path / name).mkdir(exist_ok=True)
        write_manifest(str(tmp_path / name), Manifest({"a": Digest.of(b"")}))
    assert (tmp_path / "zarr" / "_manifest" / "zarr.json").exists()
    assert "_manifest/zarr.json" in (read_manifest(str(tmp_path / "zarr")) or SMALL).files
    assert [path.name for path in (tmp_path / "plain").rglob("*")] == ["_manifest", FILE.rpartition("/")[2]]
    assert read_manifest(str(tmp_path)) is None
