"""Small slides as vendors write them, of a known picture: tiles overlap, or lie in several files."""

import io
import itertools
import struct
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

Overlaps = tuple[int, int]


def draw(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture (y, x, 3), uint8, no two places of which are alike."""
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def cut(picture: np.ndarray, tile: int, overlap: Overlaps) -> tuple[int, int, list[np.ndarray]]:
    """Rows, columns and tiles in raster order; the picture has to be whole tiles that overlap (y, x) px."""
    steps = [tile - pixels for pixels in overlap]
    rows, columns = (
        (size - pixels) // step for size, pixels, step in zip(picture.shape[:2], overlap, steps, strict=True)
    )
    corners = itertools.product(range(rows), range(columns))
    tiles = [picture[r * steps[0] :, c * steps[1] :][:tile, :tile] for r, c in corners]
    assert all(one.shape[:2] == (tile, tile) for one in tiles)
    return rows, columns, tiles


def write_ventana(path: Path, picture: np.ndarray, *, tile: int = 64, overlap: Overlaps = (6, 10)) -> None:
    """A Ventana BIF: a label, then level 0, whose XML says by how many pixels each tile overlaps the next."""
    rows, columns, tiles = cut(picture, tile, overlap)

    def number(row: int, column: int) -> int:  # from the bottom, in a snake
        from_below = rows - 1 - row
        return from_below * columns + (columns - 1 - column if from_below % 2 else column) + 1

    joints = [("RIGHT", (row, column), (row, column + 1)) for row in range(rows) for column in range(columns - 1)]
    joints += [("UP", (row + 1, column), (row, column)) for row in range(rows - 1) for column in range(columns)]
    listed = "".join(
        f'<TileJointInfo FlagJoined="1" Confidence="98" Direction="{direction}" Tile1="{number(*one)}" '
        f'Tile2="{number(*other)}" OverlapX="{overlap[1]}" OverlapY="{overlap[0]}"/>'
        for direction, one, other in joints
    )
    stitched = (
        f'<EncodeInfo Ver="2"><SlideStitchInfo><ImageInfo AOIScanned="1" AOIIndex="0" Pos-X="0" Pos-Y="0" '
        f'Width="{tile}" Height="{tile}" NumRows="{rows}" NumCols="{columns}">{listed}</ImageInfo></SlideStitchInfo>'
        f'<AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )
    scan = '<iScan Magnification="20" ScanRes="0.465" UnitNumber="2000" Z-layers="1" Z-spacing="1"/>'
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for image, description, xml, kwargs in (
            (draw(40, 30, 1), "Label Image", scan, {}),
            (iter(tiles), "level=0 mag=20 quality=95", stitched, {"tile": (tile, tile), "compression": "lzw"}),
        ):
            tif.write(
                image,
                shape=(rows * tile, columns * tile, 3) if kwargs else None,
                dtype=np.uint8,
                photometric="rgb",
                description=description,
                metadata=None,
                extratags=[(700, 1, len(xml), xml.encode(), True)],
                **kwargs,
            )


def write_trestle(path: Path, picture: np.ndarray, *, tile: int = 64, overlap: Overlaps = (6, 10)) -> None:
    """A Trestle TIFF, whose description says by how many pixels its tiles overlap."""
    rows, columns, tiles = cut(picture, tile, overlap)
    tifffile.imwrite(
        path,
        iter(tiles),
        shape=(rows * tile, columns * tile, 3),
        dtype=np.uint8,
        tile=(tile, tile),
        compression="lzw",
        photometric="rgb",
        software="MedScan Test",
        description=f"Objective Power=20;OverlapsXY= {overlap[1]} {overlap[0]} ;Background Color=FFFFFF",
        metadata=None,
        resolution=(0.31, 0.33),  # um per pixel, which is not what these tags are for
    )


def write_mirax(
    path: Path, picture: np.ndarray, *, tile: int = 64, overlap: Overlaps = (6, 10), hole: int = -1
) -> None:
    """A MIRAX slide: an overview, and a folder with a description, an index and tiles as PNG; one may be missing."""
    rows, columns, tiles = cut(picture, tile, overlap)
    folder = path.with_suffix("")
    folder.mkdir()
    Image.fromarray(picture[::4, ::4]).save(path, "JPEG")
    data, records = bytearray(b"head"), []
    for number, one in enumerate(tiles):
        if number != hole:
            encoded = io.BytesIO()
            Image.fromarray(one).save(encoded, "PNG")
            records.append((number, len(data), encoded.tell(), 0))
            data += encoded.getvalue()
    (folder / "Data0000.dat").write_bytes(data)
    head = b"01.02" + b"TESTSLIDE"
    levels, pages = len(head) + 8, len(head) + 12
    page = pages + 8
    index = head + struct.pack("<3i", levels, 0, pages) + struct.pack("<2i", 0, page)
    index += struct.pack("<2i", len(records), 0) + b"".join(struct.pack("<4i", *record) for record in records)
    (folder / "Index.dat").write_bytes(index)
    (folder / "Slidedat.ini").write_text(
        f"[GENERAL]\nSLIDE_VERSION=01.02\nSLIDE_ID=TESTSLIDE\nIMAGENUMBER_X={columns}\nIMAGENUMBER_Y={rows}\n"
        f"OBJECTIVE_MAGNIFICATION=20\nCameraImageDivisionsPerSide=1\n"
        f"[HIERARCHICAL]\nHIER_COUNT=1\nNONHIER_COUNT=0\nINDEXFILE=Index.dat\nHIER_0_NAME=Slide zoom level\n"
        f"HIER_0_COUNT=1\nHIER_0_VAL_0_SECTION=ZOOM\n"
        f"[DATAFILE]\nFILE_COUNT=1\nFILE_0=Data0000.dat\n"
        f"[ZOOM]\nIMAGE_CONCAT_FACTOR=0\nOVERLAP_X={overlap[1]}\nOVERLAP_Y={overlap[0]}\n"
        f"MICROMETER_PER_PIXEL_X=0.25\nMICROMETER_PER_PIXEL_Y=0.26\nIMAGE_FILL_COLOR_BGR={0x0A1420}\n"
        f"DIGITIZER_WIDTH={tile}\nDIGITIZER_HEIGHT={tile}\nIMAGE_FORMAT=PNG\n"
    )


def write_vms(path: Path, picture: np.ndarray) -> np.ndarray:
    """A Hamamatsu VMS of two JPEG files beside each other and a map; returns the pixels that a JPEG decoder gives."""
    halves = np.split(picture, 2, axis=1)
    decoded = []
    for name, image in (*((f"part{n}.jpg", half) for n, half in enumerate(halves)), ("map.jpg", picture[::8, ::8])):
        Image.fromarray(image).save(path.parent / name, "JPEG", quality=95, subsampling=0, restart_marker_blocks=4)
        decoded.append(np.asarray(Image.open(path.parent / name)))
    height, width = picture.shape[:2]
    path.write_text(
        f"[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns=2\nNoJpegRows=1\nImageFile=part0.jpg\n"
        f"ImageFile(1,0)=part1.jpg\nMapFile=map.jpg\nPhysicalWidth={width * 230}\nPhysicalHeight={height * 240}\n"
        f"SourceLens=40\n"
    )
    return np.concatenate(decoded[:2], axis=1)


# -- DICOM, written element by element ---------------------------------------------------------------------------

_WHOLE_SLIDE, _CT = "1.2.840.10008.5.1.4.1.1.77.1.6", "1.2.840.10008.5.1.4.1.1.2"
_PLAIN = "1.2.840.10008.1.2.1"  # explicit lengths, little endian, not compressed


def write_dicom(
    path: Path, picture: np.ndarray, *, series: str = "1.2.3", number: int = 1, tile: int = 64, whole_slide: bool = True
) -> None:
    """One level of a whole slide in DICOM, in tiles; or, as a negative control, an image of another class."""
    height, width = picture.shape[:2]
    rows, columns = -(-height // tile), -(-width // tile)
    padded = np.zeros((rows * tile, columns * tile, 3), np.uint8)
    padded[:height, :width] = picture
    tiles = padded.reshape(rows, tile, columns, tile, 3).swapaxes(1, 2)
    uid = f"1.2.3.4.{number}"
    image_type = "ORIGINAL\\PRIMARY\\VOLUME\\NONE" if number == 1 else "DERIVED\\PRIMARY\\VOLUME\\RESAMPLED"
    kind = _WHOLE_SLIDE if whole_slide else _CT
    meta = _element(2, 1, "OB", b"\0\1") + _element(2, 2, "UI", kind) + _element(2, 3, "UI", uid)
    meta += _element(2, 0x10, "UI", _PLAIN) + _element(2, 0x12, "UI", "1.2.3.9")
    measures = _element(0x28, 0x30, "DS", "0.00025\\0.00024")  # of rows, then of columns
    groups = _sequence(0x5200, 0x9229, _sequence(0x28, 0x9110, measures))
    body = (
        _element(8, 8, "CS", image_type)
        + _element(8, 0x16, "UI", kind)
        + _element(8, 0x18, "UI", uid)
        + _element(8, 0x60, "CS", "SM")
        + _element(0x20, 0xD, "UI", "1.2.3.5")
        + _element(0x20, 0xE, "UI", series)
        + _element(0x20, 0x9311, "CS", "TILED_FULL")
        + _element(0x28, 2, "US", 3)
        + _element(0x28, 4, "CS", "RGB")
        + _element(0x28, 6, "US", 0)
        + _element(0x28, 8, "IS", str(rows * columns))
        + _element(0x28, 0x10, "US", tile)
        + _element(0x28, 0x11, "US", tile)
        + _element(0x28, 0x100, "US", 8)
        + _element(0x28, 0x101, "US", 8)
        + _element(0x28, 0x102, "US", 7)
        + _element(0x28, 0x103, "US", 0)
        + _element(0x48, 6, "UL", width)
        + _element(0x48, 7, "UL", height)
        + groups
        + _element(0x7FE0, 0x10, "OB", tiles.tobytes())
    )
    path.write_bytes(bytes(128) + b"DICM" + _element(2, 0, "UL", len(meta)) + meta + body)


def _element(group: int, tag: int, kind: str, value: str | int | bytes) -> bytes:
    if isinstance(value, int):
        value = struct.pack("<H" if kind == "US" else "<I", value)
    elif isinstance(value, str):
        value = value.encode()
        value += (b"\0" if kind == "UI" else b" ") * (len(value) % 2)
    value += b"\0" * (len(value) % 2)
    head = struct.pack("<HH2s", group, tag, kind.encode())
    is_long = kind in ("OB", "SQ")
    return head + (struct.pack("<HI", 0, len(value)) if is_long else struct.pack("<H", len(value))) + value


def _sequence(group: int, tag: int, item: bytes) -> bytes:
    return _element(group, tag, "SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item)
