"""Labels in a store with consolidated metadata, as the default readers of other programs see them."""

import json
import logging
import stat
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr

from segment_slide.pipeline.storage.fingerprint import fingerprint
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.place import show_to_all
from tests.flows.support import noise, run_here, write_group, write_ome

# Readers that go through all of a store find the manifest, which is no part of Zarr.
pytestmark = pytest.mark.filterwarnings("ignore:Object at files.json:zarr.errors.ZarrUserWarning")

OPTIONS = ("--block", 96, "--precision", "float32", "--name", "cells")
NOTE = "consolidated metadata"


def consolidate(location: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)  # format 3 does not define it
        zarr.consolidate_metadata(location)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image with labels of another tool and consolidated metadata."""
    path = write_ome(tmp_path / "image.zarr", noise(100, 130), "yx", scale=(0.5, 0.25))
    write_group(path / "labels", {"ome": {"version": "0.5", "labels": ["old"]}})
    write_ome(path / "labels" / "old", noise(100, 130, seed=1), "yx")
    consolidate(path)
    return path


def names_seen(location: Path) -> set[str]:
    """Groups below labels/ that zarr-python finds from the root, by its defaults."""
    root = zarr.open_group(location, mode="r")
    return {name.split("/")[1] for name, _ in root.members(max_depth=None) if name.startswith("labels/")}


def layers_in_napari(location: Path) -> set[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # napari's own
        from napari_ome_zarr import napari_get_reader

        layers = napari_get_reader(str(location))(str(location))
        return {shown["name"].rpartition("/")[2] for _, shown, kind in layers if kind == "labels"}


def nodes_in_ome_zarr_py(location: Path) -> set[str]:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    return {
        str(node.zarr).removesuffix(" [zgroup]").rpartition("/labels/")[2]
        for node in Reader(parse_url(str(location)))()
    }


@pytest.mark.slow
def test_labels_written_in_place_are_seen_by_every_default_reader(image, model, warm, caplog):
    before, root = fingerprint(describe_image(image)), json.loads((image / "zarr.json").read_text())
    assert names_seen(image) == {"old"}
    outcome = run_here("segment", image, "-m", model, "--in-place", *OPTIONS)
    assert outcome.exit_code == 0, outcome
    assert NOTE in caplog.text
    caplog.clear()
    assert names_seen(image) == {"cells", "old"}
    assert layers_in_napari(image) == {"cells"}  # the other one says nowhere that it is a label image
    assert "cells" in nodes_in_ome_zarr_py(image)
    del root["consolidated_metadata"]
    assert json.loads((image / "zarr.json").read_text()) == root  # nothing else changed
    assert fingerprint(describe_image(image)) == before

    consolidate(image)  # by the user, afterwards: the same input, and objects are found in it
    copied = (image / "zarr.json").read_bytes()
    again = run_here("segment", image, "-m", model, "--in-place", *OPTIONS)
    assert again.exit_code == 0, again
    assert (image / "zarr.json").read_bytes() == copied  # it shows the labels, so it stays
    assert NOTE not in caplog.text
    assert "cells-instances" not in layers_in_napari(image)
    found = run_here("instances", image, "--name", "cells", "--block", 96)
    assert found.exit_code == 0, found
    assert NOTE in caplog.text
    caplog.clear()
    assert names_seen(image) == {"cells", "cells-instances", "old"}
    assert layers_in_napari(image) == {"cells", "cells-instances"}
    consolidate(image)
    measured = run_here("measure", image, "--name", "cells")
    assert measured.exit_code == 0, measured
    assert zarr.open_group(image, mode="r")["tables"].attrs["segment_slide"]
    label = zarr.open_group(image, mode="r")["labels/cells-instances"].attrs["ome"]["image-label"]
    assert label["properties"][0]["label-value"] == 1
    caplog.clear()
    quiet = run_here("instances", image, "--name", "cells", "--block", 96)
    assert (quiet.exit_code, NOTE in caplog.text) == (0, False)


def test_a_run_that_was_killed_before_the_copy_was_deleted_is_resumed(image, model, warm, monkeypatch):
    class KilledError(BaseException):
        pass

    def die(*_):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("segment_slide.pipeline.segmentation.stages.show_to_all", die)
        with pytest.raises(KilledError):
            run_here("segment", image, "-m", model, "--in-place", *OPTIONS)
    assert names_seen(image) == {"old"}
    outcome = run_here("segment", image, "-m", model, "--in-place", *OPTIONS)
    assert outcome.exit_code == 0, outcome
    assert names_seen(image) == {"cells", "old"}


class TestCopies:
    def collection(self, folder: Path) -> Path:
        """A field of a plate: all groups above it hold copies, and so does labels/."""
        field = write_ome(folder / "plate.zarr" / "A" / "1" / "0", noise(8, 8), "yx")
        for group in ("plate.zarr", "plate.zarr/A", "plate.zarr/A/1", "plate.zarr/A/1/0/labels"):
            write_group(folder / group, {"kept": [1.5, "µ"]})
        write_group(field / "labels" / "old", {})
        for group in (field / "labels", field, field.parent, field.parents[1], field.parents[2]):
            consolidate(group)
        write_group(field / "labels" / "new", {})
        return field

    def test_they_are_deleted_in_all_groups_above(self, tmp_path):
        field = self.collection(tmp_path)
        plate = field.parents[2]

        def seen() -> list[set[str]]:
            from_plate, from_field = zarr.open_group(plate, mode="r")["A/1/0/labels"], zarr.open_group(field, mode="r")
            return [set(from_plate), set(from_field["labels"]), set(zarr.open_group(field / "labels", mode="r"))]

        assert seen() == [{"old"}] * 3
        show_to_all(str(field), "labels/new")
        assert seen() == [{"new", "old"}] * 3
        assert dict(zarr.open_group(plate, mode="r").attrs) == {"kept": [1.5, "µ"]}

    def test_a_copy_around_the_store_that_cannot_be_deleted_is_a_warning(self, tmp_path, caplog, monkeypatch):
        field = self.collection(tmp_path)
        write = Path.write_bytes

        def refuse(path: Path, content: bytes) -> int:
            if path.parent == field.parent:
                raise PermissionError(13, "denied")
            return write(path, content)

        monkeypatch.setattr(Path, "write_bytes", refuse)
        with caplog.at_level(logging.WARNING):
            show_to_all(str(field), "labels/new")
        assert f"{field.parent} hides the new 0/labels/new from readers" in caplog.text
        assert "new" in zarr.open_group(field, mode="r")["labels"]

    def test_the_file_keeps_its_permissions_and_a_link_stays_a_link(self, tmp_path):
        field = self.collection(tmp_path)
        (field / "zarr.json").rename(tmp_path / "elsewhere.json")
        (field / "zarr.json").symlink_to(tmp_path / "elsewhere.json")
        (tmp_path / "elsewhere.json").chmod(0o664)
        show_to_all(str(field), "labels/new")
        assert (field / "zarr.json").is_symlink()
        assert stat.S_IMODE((tmp_path / "elsewhere.json").stat().st_mode) == 0o664
        assert "consolidated_metadata" not in json.loads((tmp_path / "elsewhere.json").read_text())


def test_metadata_are_read_from_the_group_and_not_from_an_older_copy(tmp_path):
    """A format 2 store whose root was described after it was consolidated, and one whose copy is damaged."""
    pixels = noise(40, 50)
    root = zarr.create_group(tmp_path / "image.zarr", zarr_format=2)
    root.create_array("0", data=pixels, chunks=(32, 32))
    consolidate(root.store)
    (tmp_path / "image.zarr" / ".zattrs").write_text(
        json.dumps(
            {
                "multiscales": [
                    {
                        "version": "0.4",
                        "axes": [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}],
                        "datasets": [
                            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [0.5, 0.5]}]}
                        ],
                    }
                ]
            }
        )
    )
    for damage in (lambda: None, lambda: (tmp_path / "image.zarr" / ".zmetadata").write_text("{cut off")):
        damage()
        image = describe_image(tmp_path / "image.zarr")
        assert image.multiscale.levels[0].scale == (0.5, 0.5)
        np.testing.assert_array_equal(image.array()[...], pixels)
