"""The files of an OME-TIFF of several files are one acquisition in a watched folder. tifffile reads the same sets."""

import os
from pathlib import Path

import pytest
import tifffile

from segment_slide.pipeline.ingest import ome_sets
from segment_slide.pipeline.ingest.plan import plan_ingest
from segment_slide.pipeline.ingest.run import run_ingest
from segment_slide.pipeline.nights.acquisitions import Acquisition, find_acquisitions, read_again
from segment_slide.pipeline.nights.outputs import Layout, delete_stale_image
from tests.flows.support import noise
from tests.pipeline.ingest.test_ome_tiff import PLANES, at, document, image, write, write_companion_set


def names(acquisition: Acquisition) -> list[str]:
    return [os.path.basename(path) for path in acquisition.files]


def write_set(folder: Path, *files: str, um: float = 1.0) -> None:
    """Files of one z plane each; every file has the document of all."""
    folder.mkdir(parents=True, exist_ok=True)
    planes = "".join(at(0, name, f"urn:uuid:{name}", f'FirstZ="{z}"') for z, name in enumerate(files))
    for z, name in enumerate(files):
        text = document(image(0, um, planes, z=len(files)), uuid=f"urn:uuid:{name}")
        write(folder / name, text, PLANES[z : z + 1])


def test_a_set_is_one_acquisition_and_files_beside_it_are_their_own(tmp_path: Path) -> None:
    write_set(tmp_path / "a", "z10.ome.tif", "z9.ome.tif")
    write_set(tmp_path / "b", "z9.ome.tif", "z10.ome.tif")
    write_companion_set(tmp_path)
    tifffile.imwrite(tmp_path / "alone.ome.tif", noise(8, 9))
    tifffile.imwrite(tmp_path / "plain.tif", noise(8, 9))
    (tmp_path / "damaged.tif").write_bytes(b"II*\0damaged")
    found = {acquisition.name: acquisition for acquisition in find_acquisitions(str(tmp_path))}
    assert sorted(found) == ["a/z9.ome.tif", "alone.ome.tif", "b/z9.ome.tif", "c0.ome.tif", "damaged.tif", "plain.tif"]
    assert names(found["a/z9.ome.tif"]) == ["z10.ome.tif", "z9.ome.tif"]
    assert names(found["c0.ome.tif"]) == ["c0.ome.tif", "c1.ome.tif", "set.companion.ome"]
    for acquisition in found.values():
        assert read_again(acquisition) == acquisition
        assert acquisition.n_files == len(acquisition.files)
        if acquisition.name != "damaged.tif":
            assert plan_ingest(acquisition.path).image.files == acquisition.files
    with tifffile.TiffFile(found["a/z9.ome.tif"].path) as tif:
        assert tif.series[0].shape == (2, 8, 9)


def test_images_in_files_of_their_own_are_acquisitions_of_their_own(tmp_path: Path) -> None:
    """As positions on one stage: every document lists all of them."""
    where = {"p0_0.ome.tif": (0, 0), "p0_1.ome.tif": (0, 1), "p1_0.ome.tif": (1, 0), "p1_1.ome.tif": (1, 1)}
    images = []
    for number in range(2):
        planes = [at(0, n, f"urn:uuid:{n}", f'FirstZ="{z}"') for n, (p, z) in where.items() if p == number]
        images.append(image(number, number + 1, "".join(planes), z=2))
    for number, name in enumerate(where):
        write(tmp_path / name, document(*images, uuid=f"urn:uuid:{name}"), PLANES[number : number + 1])
    first, second = find_acquisitions(str(tmp_path))
    assert (names(first), names(second)) == (["p0_0.ome.tif", "p0_1.ome.tif"], ["p1_0.ome.tif", "p1_1.ome.tif"])
    for acquisition, um in ((first, 1.0), (second, 2.0)):
        plan = plan_ingest(acquisition.path)
        assert (plan.image.pixel_size[-1], plan.image.files) == (um, acquisition.files)


def test_a_file_of_two_images_hides_none_of_them(tmp_path: Path) -> None:
    """The middle file has a plane of both; the last one has planes of the second image alone."""
    first = at(0, "a.ome.tif", "urn:uuid:a") + at(0, "b.ome.tif", "urn:uuid:b", 'FirstZ="1"')
    second = at(1, "b.ome.tif", "urn:uuid:b") + at(0, "c.ome.tif", "urn:uuid:c", 'FirstZ="1"')
    for name, planes in (("a", PLANES[:1]), ("b", PLANES[1:3]), ("c", PLANES[3:])):
        text = document(image(0, 1, first, z=2), image(1, 2, second, z=2), uuid=f"urn:uuid:{name}")
        write(tmp_path / f"{name}.ome.tif", text, planes)
    found = find_acquisitions(str(tmp_path))
    assert [acquisition.name for acquisition in found] == ["a.ome.tif", "c.ome.tif"]
    assert [plan_ingest(acquisition.path).image.pixel_size[-1] for acquisition in found] == [1.0, 2.0]


@pytest.mark.parametrize("master", ["a.ome.tif", "z.ome.tif"])
def test_a_file_with_the_metadata_alone_is_no_acquisition_and_files_without_them_belong_to_it(
    tmp_path: Path, master: str
) -> None:
    planes = "".join(at(0, f"p{z}.ome.tif", f"urn:uuid:{z}", f'FirstZ="{z}"') for z in range(2))
    write(tmp_path / master, document(image(0, 1, planes, z=2), uuid="urn:uuid:m"), PLANES[:1, :2, :2])
    other = document(f'<BinaryOnly MetadataFile="{master}" UUID="urn:uuid:m"/>', uuid="urn:uuid:1")
    for z in range(2):
        write(tmp_path / f"p{z}.ome.tif", other, PLANES[z : z + 1])
    (found,) = find_acquisitions(str(tmp_path))
    assert (found.name, names(found)) == ("p0.ome.tif", sorted(["p0.ome.tif", "p1.ome.tif", master]))
    assert plan_ingest(found.path).image.files == found.files


def test_a_file_with_the_metadata_of_others_and_an_image_of_its_own_is_an_acquisition(tmp_path: Path) -> None:
    images = [image(n, n + 1, at(0, f"p{n}.ome.tif", f"urn:uuid:{n}")) for n in range(2)]
    write(tmp_path / "p1.ome.tif", document(*images, uuid="urn:uuid:1"), PLANES[:1])
    other = document('<BinaryOnly MetadataFile="p1.ome.tif" UUID="urn:uuid:1"/>', uuid="urn:uuid:0")
    write(tmp_path / "p0.ome.tif", other, PLANES[1:2])
    first, second = find_acquisitions(str(tmp_path))
    assert (names(first), second.name) == (["p0.ome.tif", "p1.ome.tif"], "p1.ome.tif")
    assert [plan_ingest(one.path).image.pixel_size[-1] for one in (first, second)] == [1.0, 2.0]


def test_planes_in_a_file_without_a_document_belong_to_the_set_that_names_it(tmp_path: Path) -> None:
    planes = at(0, "z.ome.tif", "urn:uuid:z") + at(0, "a.tif", "urn:uuid:a", 'FirstZ="1"')
    write(tmp_path / "z.ome.tif", document(image(0, 1, planes, z=2), uuid="urn:uuid:z"), PLANES[:1])
    write(tmp_path / "a.tif", "", PLANES[1:2])
    (found,) = find_acquisitions(str(tmp_path))
    assert (found.name, names(found)) == ("z.ome.tif", ["a.tif", "z.ome.tif"])
    assert plan_ingest(found.path).shape == (2, 8, 9)


@pytest.mark.parametrize("uuid", ["", "urn:uuid:1"])
def test_a_copy_that_kept_another_files_document_stays_an_acquisition(tmp_path: Path, uuid: str) -> None:
    text = document(image(0, 1, at(0, "original.ome.tif")), uuid=uuid)
    for name in ("copy.ome.tif", "original.ome.tif"):
        write(tmp_path / name, text)
    assert [names(found) for found in find_acquisitions(str(tmp_path))] == [["copy.ome.tif"], ["original.ome.tif"]]


@pytest.mark.parametrize("name", ["c1.ome.tif", "set.companion.ome"])
def test_a_change_of_any_file_of_a_set_changes_the_acquisition(tmp_path: Path, name: str) -> None:
    write_companion_set(tmp_path)
    (before,) = find_acquisitions(str(tmp_path))
    content = before.fingerprint
    path = tmp_path / name
    path.write_bytes(path.read_bytes() + b"\n")
    (after,) = find_acquisitions(str(tmp_path))
    assert after == read_again(before)
    assert after.times != before.times
    assert not after.is_as(content)
    assert after.size_bytes == before.size_bytes + 1
    (tmp_path / "c0.ome.tif").unlink()
    assert read_again(before) is None


def test_what_an_earlier_version_finished_of_the_first_file_stays_done(tmp_path: Path) -> None:
    write_set(tmp_path, "a.ome.tif", "b.ome.tif")
    (found,) = find_acquisitions(str(tmp_path))
    tifffile.imwrite(tmp_path / "c.tif", noise(8, 9))
    (tmp_path / "b.ome.tif").rename(tmp_path / "b.hidden")  # a file alone is noted as earlier versions noted it
    alone = next(one for one in find_acquisitions(str(tmp_path)) if one.name == "a.ome.tif")
    assert found.is_as(alone.times)
    assert not alone.is_as(found.times)


def test_patterns_choose_a_set_by_any_of_its_files(tmp_path: Path) -> None:
    write_set(tmp_path / "s", "z0.ome.tif", "z1.ome.tif")
    assert [a.name for a in find_acquisitions(str(tmp_path), ["s/z1*"])] == ["s/z0.ome.tif"]
    assert find_acquisitions(str(tmp_path), ["z1*"]) == []


def test_the_conversion_of_an_earlier_content_of_a_set_is_deleted(tmp_path: Path) -> None:
    write_set(tmp_path / "watch", "a.ome.tif", "b.ome.tif")
    layout = Layout(str(tmp_path / "out"), "model.safetensors", "0" * 64)
    (found,) = find_acquisitions(str(tmp_path / "watch"))
    converted = layout.image_of(found.name)
    run_ingest(plan_ingest(found.path), converted)
    delete_stale_image(layout, found)
    assert Path(converted).exists()
    write(tmp_path / "watch/b.ome.tif", tifffile.tiffcomment(tmp_path / "watch/b.ome.tif"), PLANES[2:3])
    (found,) = find_acquisitions(str(tmp_path / "watch"))
    delete_stale_image(layout, found)
    assert not Path(converted).exists()


def test_a_document_is_read_once_for_all_files_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path, *(f"z{number}.ome.tif" for number in range(4)))
    read, read_text = [], ome_sets.read_text
    monkeypatch.setattr(ome_sets, "read_text", lambda tif: read.append(tif.filename) or read_text(tif))
    assert len(find_acquisitions(str(tmp_path))) == 1
    assert read == ["z0.ome.tif"]


def test_negative_control_without_documents_each_file_is_an_acquisition(tmp_path: Path) -> None:
    for name in ("z0.ome.tif", "z1.ome.tif"):
        write(tmp_path / name, "", PLANES[:1])
    assert len(find_acquisitions(str(tmp_path))) == 2
