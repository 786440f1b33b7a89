"""Files of file managers, file servers and editors: beside chunks, in folders of images, in watched folders."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import zarr

import segment_slide.flows.instances as flows_instances
import segment_slide.flows.measure as flows_measure
import segment_slide.flows.weight_maps as flows_weight_maps
from segment_slide.pipeline.ingest.formats import list_files
from segment_slide.pipeline.metadata.junk import is_array_file, is_junk
from segment_slide.pipeline.nights.acquisitions import find_acquisitions, read_again
from segment_slide.pipeline.objects.output import find_labels
from segment_slide.pipeline.scoring.mask_files import open_source
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.fingerprint import fingerprint
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.place import has_label, list_label, read_label_names
from segment_slide.pipeline.training.annotation import find_annotation
from segment_slide.pipeline.training.options import AnnotationInput
from tests.flows.support import noise, run_here, write_group, write_ome, write_segmentation

JUNK = [
    ".DS_Store", "._0", "Thumbs.db", "thumbs.db", "desktop.ini", "@eaDir/0@SynoEAStream", ".nfs00012", ".zattrs~",
    "zarr.json~", ".zarray.swp", ".Spotlight-V100/store", "#recycle/0", ".zarray.Ab3dE6", "$RECYCLE.BIN/0",
    os.fsdecode(b".nfs\xe9"),
]  # fmt: skip
PIXELS = noise(40, 60)


def litter(folder: Path, names: list[str] = JUNK) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"junk")


def of_format(folder: Path, zarr_format: int, separator: str) -> StoredImage:
    """A bare array of either format, with either kind of chunk names."""
    name = "v2" if zarr_format == 2 else "default"
    zarr.create_array(
        str(folder),
        data=PIXELS,
        chunks=(16, 16),
        zarr_format=zarr_format,
        chunk_key_encoding={"name": name, "separator": separator},
    )
    return describe_image(folder, axes="yx")


@pytest.mark.parametrize(("zarr_format", "separator"), [(2, "."), (2, "/"), (3, "."), (3, "/")])
def test_junk_beside_chunks_changes_no_fingerprint_and_every_chunk_counts(
    tmp_path: Path, zarr_format: int, separator: str
) -> None:
    image = of_format(tmp_path / "a", zarr_format, separator)
    before = fingerprint(image)
    stored = sorted(path for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert sum(is_array_file(str(path.relative_to(tmp_path / "a"))) for path in stored) == len(stored) >= 13
    for folder in [tmp_path / "a", *(path for path in (tmp_path / "a").rglob("*") if path.is_dir())]:
        litter(folder)
        (folder / "no chunk").symlink_to("nowhere")
    assert fingerprint(image) == before
    np.testing.assert_array_equal(image.array()[...], PIXELS)
    for path in stored:  # negative control
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        assert fingerprint(image) != before
        path.write_bytes(content)


def of_0_1_0(image: StoredImage) -> str:
    """What version 0.1.0 took for a fingerprint: it counted every file, and its time."""
    digest, base = hashlib.sha256(), Path(image.location, image.array_path)
    level, units = image.multiscale.levels[image.level], image.multiscale.units
    about = [image.array_path, image.shape, image.dtype, image.axes, units, level.scale, level.translation]
    digest.update(json.dumps(about).encode())
    lines = []
    for path in base.rglob("*"):
        if path.is_file():
            lines.append(f"{path.relative_to(base)} {path.stat().st_size} {path.stat().st_mtime_ns}\n")
    digest.update("".join(sorted(lines)).encode())
    return digest.hexdigest()


def test_a_run_that_0_1_0_began_beside_junk_is_the_same_input_still(tmp_path: Path) -> None:
    image = describe_image(write_ome(tmp_path / "image.zarr", PIXELS, "yx"))
    assert fingerprint(image, of_0_1_0(image)) == of_0_1_0(image) != fingerprint(image)
    litter(tmp_path / "image.zarr" / "0", JUNK[:6])
    begun_with = of_0_1_0(image)
    assert begun_with != fingerprint(image) == fingerprint(image, "another")
    assert fingerprint(image, begun_with) == begun_with
    (tmp_path / "image.zarr" / "0" / ".DS_Store").unlink()
    assert fingerprint(image, begun_with) != begun_with


@pytest.mark.parametrize("command", ["instances", "measure", "weight-maps"])
def test_what_0_1_0_made_beside_junk_is_gone_on_with(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flow in (flows_instances, flows_measure, flows_weight_maps):
        monkeypatch.setattr(flow, "open_cluster", lambda *_, **__: contextlib.nullcontext())
    image = write_ome(tmp_path / "image.zarr", PIXELS, "yx")
    stored = write_segmentation(tmp_path / "out.zarr", (PIXELS > 128).astype(np.uint8))
    classes = stored / "labels" / "segmentation" / "0"
    first = ("instances", stored, "--block", 64)
    words = {
        "instances": first,
        "measure": ("measure", stored, "--image", image),
        "weight-maps": ("weight-maps", image, "--labels", stored / "labels/segmentation", "-o", tmp_path / "set.zarr"),
    }[command]
    litter(image / "0", JUNK[:6])
    litter(classes, JUNK[:6])
    with monkeypatch.context() as earlier:  # version 0.1.0 counted every file, and its time
        for module in ("objects.plan", "measurement.plan", "training.annotation", "training.training_set"):
            earlier.setattr(f"segment_slide.pipeline.{module}.fingerprint", lambda image, *_, **__: of_0_1_0(image))
        for made in dict.fromkeys([first, words]):
            assert (outcome := run_here(*made)).exit_code == 0, outcome
    again = run_here(*words)
    assert again.exit_code == 0, again
    for folder in (image / "0", classes):  # from now on, neither junk nor times count
        (folder / JUNK[0]).unlink()
        for path in folder.rglob("*"):
            os.utime(path)
    assert (outcome := run_here(*words)).exit_code == 0, outcome
    chunk = classes / "c/0/0"
    zarr.open_array(classes)[0, 0] = 1 - zarr.open_array(classes)[0, 0]
    assert chunk.exists()
    changed = run_here(*words)
    assert (changed.exit_code, "differs" in changed.err) == (2, True), changed


def test_junk_in_folders_of_images_and_masks_is_no_image(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for k in range(2):
            zarr.create_array(str(tmp_path / folder / f"{k}.zarr"), data=PIXELS)
        litter(tmp_path / folder, ["._0.tif", "~$1.tif", "@eaDir/0.tif/thumb.tif", "Thumbs.db", "._1.zarr/zarr.json"])
    wanted = AnnotationInput((str(tmp_path / "images"),), (str(tmp_path / "masks"),), axes="yx", label_axes="yx")
    assert [pair.name for pair in find_annotation(wanted).pairs] == ["0", "1"]
    pages = tmp_path / "pages"
    litter(pages, ["a.png", "b.png", "._a.png", "~$b.png", ".nfs01.png", "@eaDir/a.png"])
    assert [Path(path).name for path in list_files([str(pages)])] == ["a.png", "b.png"]


def test_junk_in_a_watched_folder_is_no_acquisition_and_no_change(tmp_path: Path) -> None:
    image = write_ome(tmp_path / "a.zarr", PIXELS, "yx")
    litter(tmp_path, ["b.tif"])
    before = find_acquisitions(str(tmp_path))
    litter(
        tmp_path,
        ["._b.tif", "@eaDir/b.tif/thumb.jpg", "@eaDir/c.tif", "~$b.tif", "#recycle/old.tif", "@eaDir/d.zarr/x"],
    )
    for folder in (image, image / "0", image / "0" / "c"):
        litter(folder)
    after = find_acquisitions(str(tmp_path))
    assert after == before
    content = before[0].fingerprint
    assert [read_again(acquisition) for acquisition in before] == before
    counted = after[0].earlier_fingerprint  # 0.1.0 noted this
    assert after[0].is_as(counted)
    assert after[0].is_as(after[0].fingerprint)
    assert counted != after[0].fingerprint
    assert not before[0].is_as(counted)
    (image / "0" / "c" / "0" / "0").write_bytes(b"new")
    assert find_acquisitions(str(tmp_path))[0].fingerprint != content


def test_a_folder_that_holds_only_junk_is_free(tmp_path: Path) -> None:
    litter(tmp_path / "out")
    assert store.list_names(str(tmp_path / "out")) == set()
    assert not store.is_occupied(str(tmp_path / "out"))
    litter(tmp_path / "out", ["notes.txt"])
    assert store.list_names(str(tmp_path / "out")) == {"notes.txt"}


@pytest.mark.parametrize(
    "name", ["zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata", "0", "c", "labels", "a.tif"]
)
def test_what_belongs_to_data_is_no_junk(name: str) -> None:
    assert not is_junk(name)


class TestDanglingLabels:
    """``labels/`` lists what is not there; what is there is not listed; entries are no names."""

    @pytest.fixture
    def image(self, tmp_path: Path) -> Path:
        write_ome(tmp_path / "image.zarr", PIXELS, "yx")
        labels = tmp_path / "image.zarr" / "labels"
        write_group(labels, {"ome": {"version": "0.5", "labels": ["there", "gone", "link", 7, "../up", None]}})
        for name in ("there", "unlisted"):
            write_ome(labels / name, (PIXELS > 128).astype(np.uint8), "yx")
        (labels / "link").symlink_to("nowhere")
        litter(labels)
        return tmp_path / "image.zarr"

    def test_only_what_is_there_counts(self, image):
        notes: list[str] = []
        assert read_label_names(str(image), notes) == ["there", "gone", "link"]
        assert len(notes) == 3
        assert [has_label(str(image), name) for name in ("there", "unlisted", "gone", "link")] == [
            True,
            True,
            False,
            False,
        ]

    def test_info_describes_the_rest(self, image):
        shown = run_here("info", image)
        assert shown.exit_code == 0, shown
        assert "Labels there" in shown.out
        assert "labels/gone is listed, but cannot be opened" in shown.out

    def test_one_that_is_there_is_chosen_for_training_and_one_that_is_not_is_named(self, image):
        found = find_annotation(AnnotationInput((str(image),)))
        assert found.pairs[0].labels.path == f"{image}/labels/there"
        found = find_annotation(AnnotationInput((str(image),), label_name="unlisted"))
        assert found.pairs[0].labels.path == f"{image}/labels/unlisted"
        with pytest.raises(ValueError, match="no label image 'gone'; it has: there"):
            find_annotation(AnnotationInput((str(image),), label_name="gone"))

    def test_objects_are_found_in_one_that_is_there(self, image):
        assert find_labels(str(image), "unlisted")[1]
        with pytest.raises(ValueError, match="no label image 'gone'; choose with `name`: there"):
            find_labels(str(image), "gone")

    def test_a_new_name_joins_the_list(self, image):
        list_label(str(image), "new")
        assert read_label_names(str(image)) == ["gone", "link", "new", "there"]
        write_group(image / "labels", {"ome": {"version": "0.5", "labels": None}})
        list_label(str(image), "new")
        assert read_label_names(str(image)) == ["new"]

    def test_a_label_image_that_is_scored_is_read_as_it_is(self, image):
        box = (slice(0, 40), slice(0, 60))
        assert np.array_equal(open_source(f"{image}/labels/unlisted").read(box)[0], PIXELS > 128)
