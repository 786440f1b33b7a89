"""OME-TIFF: which image of the document a file's pixels are, companions, files of a set, and documents of strangers.

Documents are written by hand. Where tifffile reads a set by itself, its pixels are the oracle.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.ingest.formats import open_reader
from segment_slide.pipeline.ingest.ome_files import find_beside
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.ingest.plan import plan_ingest
from segment_slide.pipeline.ingest.run import run_ingest
from segment_slide.pipeline.storage.image import describe_image

PLANES = np.random.default_rng(0).integers(0, 65535, (4, 8, 9), dtype=np.uint16)
SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def document(*images: str, uuid: str = "", schema: str = SCHEMA) -> str:
    identity = f' UUID="{uuid}"' if uuid else ""
    return f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{schema}"{identity}>{"".join(images)}</OME>'


def image(number: int, um: object, planes: str, *, name: str = "", size: tuple[int, int] = (8, 9), z: int = 1,
          c: int = 1, channels: str = "") -> str:  # fmt: skip
    return (
        f'<Image ID="Image:{number}" Name="{name or number}"><Pixels ID="Pixels:{number}" DimensionOrder="XYZCT" '
        f'Type="uint16" SizeX="{size[1]}" SizeY="{size[0]}" SizeZ="{z}" SizeC="{c}" SizeT="1" PhysicalSizeX="{um}" '
        f'PhysicalSizeY="{um}">{channels}{planes}</Pixels></Image>'
    )


def at(ifd: int, file: str = "", uuid: str = "urn:uuid:1", first: str = "") -> str:
    inner = f'<UUID FileName="{file}">{uuid}</UUID>' if file else ""
    return f'<TiffData IFD="{ifd}" PlaneCount="1" {first}>{inner}</TiffData>'


def write(path: Path, text: str, data: np.ndarray = PLANES[:1]) -> Path:
    tifffile.imwrite(path, data, description=text.encode(), metadata=None, photometric="minisblack")
    return path


def read(path: Path, options: IngestOptions | None = None) -> np.ndarray:
    """All pixels, as the reader gives them."""
    reader = open_reader((str(path),), series=options.series if options else None)
    pixels = reader.read(tuple(slice(0, size) for size in reader.info.shape))
    reader.close()
    return pixels


# --- which image ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gone",
    [at(0, "other.ome.tif"), at(7), "", '<TiffData IFD="0"/>'],
    ids=["another file", "a page beyond the end", "no planes", "planes of another size"],
)
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])
def test_an_image_that_the_file_lacks_does_not_give_its_pixel_size(tmp_path: Path, gone: str, is_first: bool) -> None:
    lacking = image(0, 5, gone, name="gone", size=(100, 100) if gone == '<TiffData IFD="0"/>' else (8, 9))
    images = [lacking, image(1, 0.25, at(0), name="here")][:: 1 if is_first else -1]
    plan = plan_ingest(write(tmp_path / "a.ome.tif", document(*images)))
    assert plan.image.pixel_size == (0.25, 0.25)
    assert plan.notes == ("its OME-XML also lists 'gone', whose pixels are not there",)


def test_images_are_told_by_the_planes_they_name_not_by_their_order(tmp_path: Path) -> None:
    text = document(image(0, 5, at(1), name="second"), image(1, 0.25, at(0), name="first"))
    path = write(tmp_path / "a.ome.tif", text, PLANES[:2])
    for series, page, um, name in ((0, 1, 5.0, "second"), (1, 0, 0.25, "first")):
        plan = plan_ingest(path, IngestOptions(series=series))
        assert plan.image.pixel_size == (um, um)
        assert name in plan.notes[0]
        np.testing.assert_array_equal(read(path, IngestOptions(series=series)), PLANES[page])


def test_images_that_claim_the_same_plane_give_no_size_unless_one_is_chosen_or_they_agree(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ome.tif", document(image(0, 5, at(0)), image(1, 0.25, at(0))))
    plan = plan_ingest(path)
    assert plan.image.pixel_size == (None, None)
    assert "different things of the same planes" in "".join(plan.notes)
    assert plan_ingest(path, IngestOptions(series=1)).image.pixel_size == (0.25, 0.25)
    path = write(tmp_path / "b.ome.tif", document(image(0, 0.25, at(0)), image(1, 0.25, at(0))))
    assert plan_ingest(path).image.pixel_size == (0.25, 0.25)


def test_an_image_without_planes_is_told_by_its_size(tmp_path: Path) -> None:
    images = image(0, 5, "", size=(90, 90)), image(1, 0.25, "")
    assert plan_ingest(write(tmp_path / "a.ome.tif", document(*images))).image.pixel_size == (0.25, 0.25)
    plan = plan_ingest(write(tmp_path / "b.ome.tif", document(image(0, 5, "", size=(90, 90)))))
    assert plan.image.pixel_size == (None, None)
    assert "none of the images in its OME-XML has this size" in "".join(plan.notes)


def test_channels_without_a_name_get_a_number(tmp_path: Path) -> None:
    channels = '<Channel ID="Channel:0:0"/><Channel ID="Channel:0:1" Name="GFP"/>'
    planes = at(0) + at(1, first='FirstC="1"')
    plan = plan_ingest(write(tmp_path / "a.ome.tif", document(image(0, 1, planes, c=2, channels=channels)), PLANES[:2]))
    assert plan.image.channel_names == ("channel 0", "GFP")


OLDER = {
    "2008": (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2008-02"><Image ID="Image:0"><LogicalChannel ID="l:0" '
        'Name="DAPI"/><LogicalChannel ID="l:1" Name="GFP"/><Pixels ID="p:0" DimensionOrder="XYCZT" PixelType="uint16" '
        'BigEndian="false" SizeX="9" SizeY="8" SizeZ="1" SizeC="2" SizeT="1" PhysicalSizeX="0.3" PhysicalSizeY="0.4">'
        "<TiffData/></Pixels></Image></OME>"
    ),
    "2003": (
        '<OME xmlns="http://www.openmicroscopy.org/XMLschemas/OME/FC/ome.xsd"><Image ID="Image:0" PixelSizeX="0.3" '
        'PixelSizeY="0.4"><LogicalChannel Name="DAPI"/><LogicalChannel Name="GFP"/><Pixels ID="p:0" PixelType="uint16" '
        'DimensionOrder="XYCZT" BigEndian="false" SizeX="9" SizeY="8" SizeZ="1" SizeC="2" SizeT="1"><TiffData/>'
        "</Pixels></Image></OME>"
    ),
    "later, with a prefix": (
        '<o:OME xmlns:o="http://www.openmicroscopy.org/Schemas/OME/2031-01"><o:Image ID="Image:0"><o:Pixels ID="p:0" '
        'DimensionOrder="XYCZT" Type="uint16" SizeX="9" SizeY="8" SizeZ="1" SizeC="2" SizeT="1" PhysicalSizeX="300" '
        'PhysicalSizeXUnit="nm" PhysicalSizeY="0.4"><o:Channel Name="DAPI"/><o:Channel Name="GFP"/><o:TiffData/>'
        "</o:Pixels></o:Image></o:OME>"
    ),
}


@pytest.mark.parametrize("text", OLDER.values(), ids=OLDER)
def test_documents_of_all_versions_are_read(tmp_path: Path, text: str) -> None:
    plan = plan_ingest(write(tmp_path / "a.ome.tif", text, PLANES[:2]))
    assert (plan.axes, plan.image.channel_names) == ("cyx", ("DAPI", "GFP"))
    assert plan.image.pixel_size == pytest.approx((None, 0.4, 0.3))


# --- companions and sets --------------------------------------------------------------------------------------------


def write_companion_set(folder: Path, *, bare: bool = False) -> Path:
    """Two files of two z planes, one per channel, whose metadata are in a third."""
    planes = "".join(
        at(z, f"c{c}.ome.tif", f"urn:uuid:{c}", f'FirstC="{c}" FirstZ="{z}"') for c in range(2) for z in range(2)
    )
    channels = '<Channel ID="Channel:0:0" Name="DAPI"/><Channel ID="Channel:0:1" Name="GFP"/>'
    text = document(image(0, 0.25, planes, name="stack", z=2, c=2, channels=channels), uuid="urn:uuid:set")
    (folder / "set.companion.ome").write_text(text)
    for c in range(2):
        own = document('<BinaryOnly MetadataFile="set.companion.ome" UUID="urn:uuid:set"/>', uuid=f"urn:uuid:{c}")
        write(folder / f"c{c}.ome.tif", "" if bare else own, PLANES[2 * c : 2 * c + 2])
    return folder / "set.companion.ome"


@pytest.mark.parametrize("opened", ["c0.ome.tif", "c1.ome.tif", "set.companion.ome"])
def test_a_companion_gives_axes_sizes_and_names_and_its_set_is_one_image(tmp_path: Path, opened: str) -> None:
    companion = write_companion_set(tmp_path)
    plan = plan_ingest(tmp_path / opened)
    assert (plan.axes, plan.shape, plan.image.channel_names) == ("czyx", (2, 2, 8, 9), ("DAPI", "GFP"))
    assert plan.image.pixel_size == (None, None, 0.25, 0.25)
    assert [os.path.basename(path) for path in plan.image.files] == ["c0.ome.tif", "c1.ome.tif", companion.name]
    run_ingest(plan, tmp_path / "out.zarr")
    found = describe_image(tmp_path / "out.zarr")
    with tifffile.TiffFile(tmp_path / "c0.ome.tif", omexml=companion.read_text()) as tif:
        expected = tif.asarray()
    np.testing.assert_array_equal(found.array()[...], expected)
    np.testing.assert_array_equal(expected, PLANES.reshape(2, 2, 8, 9))
    assert found.multiscale.channel_names == ("DAPI", "GFP")


def test_a_companion_may_describe_tiff_files_that_do_not_name_it(tmp_path: Path) -> None:
    plan = plan_ingest(write_companion_set(tmp_path, bare=True))
    assert (plan.axes, plan.shape) == ("czyx", (2, 2, 8, 9))


@pytest.mark.parametrize("name", ["set.ome.xml", "set.ome"])
def test_a_companion_may_have_another_ending(tmp_path: Path, name: str) -> None:
    companion = write_companion_set(tmp_path)
    for path in tmp_path.glob("*.tif"):
        tifffile.tiffcomment(path, tifffile.tiffcomment(path).replace(companion.name, name))
    companion.rename(tmp_path / name)
    for opened in ("c0.ome.tif", name):
        plan = plan_ingest(tmp_path / opened)
        assert (plan.axes, plan.image.channel_names, plan.image.pixel_size[-1]) == ("czyx", ("DAPI", "GFP"), 0.25)
    assert plan.multiscale.name == "set"


def test_the_warnings_of_tifffile_that_our_notes_replace_are_not_shown(tmp_path: Path, caplog: Any) -> None:
    gone, here = image(0, 5, '<TiffData IFD="3"/>', name="gone"), image(1, 0.25, at(0), name="here")
    path = write(tmp_path / "a.ome.tif", document(gone, here))
    assert plan_ingest(path).notes == ("its OME-XML also lists 'gone', whose pixels are not there",)
    assert caplog.messages == []
    with tifffile.TiffFile(path) as tif:  # negative control
        assert tif.series
    assert any("OME series" in message for message in caplog.messages)


def test_a_companion_that_was_renamed_is_found_if_it_names_the_file(tmp_path: Path) -> None:
    companion = write_companion_set(tmp_path)
    companion.rename(tmp_path / "new.companion.ome")
    assert plan_ingest(tmp_path / "c0.ome.tif").axes == "czyx"
    (tmp_path / "c0.ome.tif").rename(tmp_path / "d.ome.tif")
    plan = plan_ingest(tmp_path / "d.ome.tif")
    assert "new.companion.ome is not used, because it does not name d.ome.tif" in plan.notes


@pytest.mark.parametrize("content", [None, "<OME", "<html/>", "\xff"], ids=["absent", "cut", "not OME", "no UTF-8"])
def test_a_companion_that_cannot_be_used_is_noted(tmp_path: Path, content: str | None) -> None:
    companion = write_companion_set(tmp_path)
    companion.unlink() if content is None else companion.write_bytes(content.encode("latin-1"))
    plan = plan_ingest(tmp_path / "c0.ome.tif")
    assert (plan.axes, plan.image.pixel_size) == ("zyx", (None, None, None))
    assert any("set.companion.ome" in note and "not used" in note for note in plan.notes)


@pytest.mark.parametrize("is_named", [True, False], ids=["its own planes name it", "they do not"])
@pytest.mark.parametrize("opened", ["master.ome.tif", "b.ome.tif"])
def test_the_metadata_of_a_set_may_be_in_one_of_its_tiff_files(tmp_path: Path, opened: str, is_named: bool) -> None:
    own = at(0, "master.ome.tif" if is_named else "", "urn:uuid:m")
    text = document(image(0, 0.25, own + at(0, "b.ome.tif", "urn:uuid:b", 'FirstZ="1"'), z=2), uuid="urn:uuid:m")
    write(tmp_path / "master.ome.tif", text, PLANES[:1])
    other = document('<BinaryOnly MetadataFile="master.ome.tif" UUID="urn:uuid:m"/>', uuid="urn:uuid:b")
    write(tmp_path / "b.ome.tif", other, PLANES[1:2])
    plan = plan_ingest(tmp_path / opened)
    assert (plan.axes, plan.image.pixel_size) == ("zyx", (None, 0.25, 0.25))
    np.testing.assert_array_equal(read(tmp_path / opened), PLANES[:2])


def test_a_missing_file_of_a_set_is_named(tmp_path: Path) -> None:
    companion = write_companion_set(tmp_path)
    (tmp_path / "c1.ome.tif").unlink()
    with pytest.raises(InputError, match=r"2 of 4 planes are missing \(c1.ome.tif\)"):
        plan_ingest(tmp_path / "c0.ome.tif")
    (tmp_path / "c0.ome.tif").unlink()
    with pytest.raises(InputError, match=r"none of the 2 files that it names is in its folder \(c0.ome.tif, c1"):
        plan_ingest(companion)


def test_a_folder_of_a_set_is_refused_because_each_file_stands_for_all(tmp_path: Path) -> None:
    write_companion_set(tmp_path)
    with pytest.raises(InputError, match=r"one image together with c1.ome.tif .* Name one of these files"):
        plan_ingest(tmp_path)


def test_a_file_of_a_set_of_images_gives_its_own_image(tmp_path: Path) -> None:
    text = document(image(0, 5, at(0, "a.ome.tif", "urn:uuid:a")), image(1, 0.25, at(0, "b.ome.tif", "urn:uuid:b")))
    for number, name in enumerate("ab"):
        own = text.replace("<OME ", f'<OME UUID="urn:uuid:{name}" ')
        write(tmp_path / f"{name}.ome.tif", own, PLANES[number : number + 1])
    for number, (name, um) in enumerate({"a": 5.0, "b": 0.25}.items()):
        np.testing.assert_array_equal(read(tmp_path / f"{name}.ome.tif"), PLANES[number])
        assert plan_ingest(tmp_path / f"{name}.ome.tif").image.pixel_size == (um, um)


@pytest.mark.parametrize("uuid", ["", "urn:uuid:1"])
def test_a_file_that_was_renamed_is_read(tmp_path: Path, uuid: str) -> None:
    path = write(tmp_path / "new.ome.tif", document(image(0, 0.5, at(0, "old.ome.tif")), uuid=uuid))
    assert plan_ingest(path).image.pixel_size == (0.5, 0.5)
    np.testing.assert_array_equal(read(path), PLANES[0])


def test_pixels_that_are_read_from_another_file_are_noted(tmp_path: Path) -> None:
    """A file that kept the OME-XML of its original, which names that file and says nothing of its own identity."""
    text = document(image(0, 1, at(0, "original.ome.tif")))
    for number, name in enumerate(("original", "copy")):
        write(tmp_path / f"{name}.ome.tif", text, PLANES[number : number + 1])
    np.testing.assert_array_equal(read(tmp_path / "copy.ome.tif"), PLANES[0])  # as tifffile reads it
    (note,) = plan_ingest(tmp_path / "copy.ome.tif").notes
    assert "the pixels are in original.ome.tif: they are read from there, not from the file itself" in note
    assert plan_ingest(tmp_path / "original.ome.tif").notes == ()


def test_a_file_whose_pixels_are_all_elsewhere_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ome.tif", document(image(0, 0.5, at(0, "b.ome.tif", "urn:uuid:b")), uuid="urn:uuid:a"))
    with pytest.raises(InputError, match=r"the pixels are in b.ome.tif, which is not in its folder"):
        plan_ingest(path)


# --- documents of strangers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["../secret.ome.tif", "{root}/secret.ome.tif", "x/../../secret.ome.tif"])
def test_no_file_outside_the_folder_is_opened(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "in"
    (folder / "x").mkdir(parents=True)
    write(tmp_path / "secret.ome.tif", "", PLANES[3:])
    outside = how.format(root=tmp_path)
    text = document(image(0, 0.5, at(0, outside, "urn:uuid:b")), image(1, 0.25, at(0)), uuid="urn:uuid:a")
    path = write(folder / "a.ome.tif", text)
    plan = plan_ingest(path)
    assert plan.image.files == (str(path),)
    assert plan.image.pixel_size == (0.25, 0.25)
    # tifffile alone would open it
    with tifffile.TiffFile(path) as tif:
        assert len(tif.series) == 2


def test_a_companion_outside_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_companion_set(tmp_path)
    text = document('<BinaryOnly MetadataFile="../set.companion.ome" UUID="urn:uuid:set"/>')
    plan = plan_ingest(write(tmp_path / "in" / "c0.ome.tif", text, PLANES[:2]))
    assert plan.axes == "zyx"
    assert any("../set.companion.ome, which is not in its folder" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("said", "found"),
    [("a.tif", "a.tif"), ("A.TIF", "a.tif"), ("C:\\scans\\a.tif", "a.tif"), ("/data/a.tif", "a.tif"),
     ("sub/b.tif", "sub/b.tif"), ("b.tif", None), ("../a.tif", "a.tif"), ("..", None), ("", None), ("sub", None),
     ("a.tif\0", "a.tif"), ("./a.tif", "a.tif")],
)  # fmt: skip
def test_a_name_means_a_file_beside_the_document(tmp_path: Path, said: str, found: str | None) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.tif").touch()
    (tmp_path / "sub" / "b.tif").touch()
    result = find_beside(str(tmp_path), said)
    assert (None if result is None else os.path.normpath(result)) == found


BROKEN = {
    "cut": '<?xml version="1.0"?><OME xmlns="x"><Image><Pix',
    "tags that do not match": "<OME><Image></Pixels></OME>",
    "an unknown entity": document(image(0, "&um;", at(0))),
    "an entity from a file": document(image(0, "&um;", at(0))).replace(
        "<OME", '<!DOCTYPE OME [<!ENTITY um SYSTEM "file:///etc/hostname">]><OME', 1
    ),
    "entities without end": document(image(0, "&b;", at(0))).replace(
        "<OME", '<!DOCTYPE OME [<!ENTITY a "1"><!ENTITY b "&a;&a;">]><OME', 1
    ),
    "planes without end": document(image(0, 0.5, at(0))).replace('SizeZ="1"', 'SizeZ="4000000000"'),
    "a plane far away": document(image(0, 0.5, at(0))).replace('PlaneCount="1"', 'PlaneCount="4000000000"'),
    "another root": "<x><OME></OME></x><OME>",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_document_that_is_not_read_is_noted_and_the_pixels_are_read(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "a.ome.tif", text)
    plan = plan_ingest(path)
    assert plan.image.pixel_size == (None, None)
    assert any(note.startswith("its OME-XML is not used, because it cannot be read") for note in plan.notes)
    np.testing.assert_array_equal(read(path), PLANES[0])


def test_what_follows_a_document_does_not_hide_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ome.tif", document(image(0, 0.5, at(0))) + "<!-- written by hand -->\n")
    assert plan_ingest(path).image.pixel_size == (0.5, 0.5)


@pytest.mark.parametrize(
    ("before", "after"),
    [('SizeZ="1"', 'SizeZ="x"'), ('SizeZ="1"', ""), ('DimensionOrder="XYZCT"', ""), ('IFD="0"', 'IFD="first"')],
)
def test_a_document_that_cannot_be_followed_to_planes_is_noted_and_its_sizes_stand(
    tmp_path: Path, before: str, after: str
) -> None:
    path = write(tmp_path / "a.ome.tif", document(image(0, 0.5, at(0))).replace(before, after))
    plan = plan_ingest(path)
    assert (plan.shape, plan.image.pixel_size) == ((8, 9), (0.5, 0.5))
    assert [note[:32] for note in plan.notes] == ["its OME-XML is not used for plan"]


def test_a_set_s_identity_includes_its_companion(tmp_path: Path) -> None:
    companion = write_companion_set(tmp_path)
    before: Any = plan_ingest(tmp_path / "c0.ome.tif").record.ingested_from
    companion.write_text(companion.read_text().replace("DAPI", "Hoechst"))
    assert plan_ingest(tmp_path / "c0.ome.tif").record.ingested_from != before
