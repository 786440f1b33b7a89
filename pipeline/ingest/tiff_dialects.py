"""What microscopes and scanners write into TIFF beside its standard tags: sizes of pixels and names of channels.

A dialect is a row of the table `DIALECTS`: what recognises it, and what reads it. Each says its own units; all sizes go
through `read_size`, so that what cannot be used becomes a note.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.etree.ElementTree import Element

import tifffile

from segment_slide.pipeline.metadata.calibration import Calibration, calibration_of
from segment_slide.pipeline.metadata.numbers import Size, parse_number, read_size
from segment_slide.pipeline.metadata.safe_xml import XmlError, children, parse_xml, tag

_QPI = "PerkinElmer-QPI-ImageDescription"
_MAIN = 0  # the series with the microscope's pixels; the others are thumbnails, labels and overviews


def read_dialects(tif: tifffile.TiffFile, series: Any, number: int) -> Iterator[Calibration]:
    """What each dialect of a file says of a series, the most specific first."""
    for name, applies, read in DIALECTS:
        try:
            if applies(tif, series, number):
                yield read(tif, series)
        except Exception as error:  # noqa: BLE001, damaged metadata raise anything, and pixels do not need them
            yield Calibration(
                notes=(f"its {name} metadata cannot be read ({type(error).__name__}: {str(error)[:100]})",)
            )


def parse_aperio(description: str) -> Calibration:
    """Calibration of an SVS file: microns per pixel.

    >>> parse_aperio("Aperio Image Library|AppMag = 20|MPP = 0,4990|Left = 25.6").pixel_size
    {'y': 0.499, 'x': 0.499}
    """
    match = re.search(r"\|\s*MPP\s*=([^|]*)", description, re.IGNORECASE)
    size = read_size(match.group(1).strip() if match else None, "um", "MPP")
    return calibration_of({"y": size, "x": size})


def _aperio(tif: tifffile.TiffFile, series: Any) -> Calibration:
    return parse_aperio(series.keyframe.description)


def parse_philips(description: str) -> Calibration:
    """Calibration of a Philips slide: DICOM's row and column spacing in mm.

    >>> parse_philips('<DataObject><Attribute Name="DICOM_PIXEL_SPACING">"5e-4" "2.5e-4"</Attribute></DataObject>')
    Calibration(pixel_size={'y': 0.5, 'x': 0.25}, channel_names=(), notes=())
    """
    root = parse_xml(description)
    scanned = [item for item in root.iter("DataObject") if item.get("ObjectType") == "DPScannedImage"]
    slide = [item for item in scanned if (_attribute(item, "PIM_DP_IMAGE_TYPE") or "").strip() == "WSI"]
    levels = [item for one in slide or [root] for item in one.iter("DataObject")]
    # an image's own spacing is that of its finest level; levels are listed from the finest on
    texts = [_attribute(item, "DICOM_PIXEL_SPACING") for item in [*slide, root, *levels]]
    said = next((text for text in texts if text), None)
    if said is None:
        return Calibration()
    parts = re.sub(r'["\\]', " ", said).split()
    if len(parts) != 2:
        return Calibration(notes=(f"the file says DICOM_PIXEL_SPACING={said.strip():.60}; not used, expected two",))
    return calibration_of(
        {axis: read_size(p, "mm", "DICOM_PIXEL_SPACING") for axis, p in zip("yx", parts, strict=True)}
    )


def _attribute(item: Element, name: str) -> str | None:
    return next((child.text for child in children(item, "Attribute") if child.get("Name") == name), None)


def _philips(tif: tifffile.TiffFile, series: Any) -> Calibration:
    return parse_philips(tif.pages.first.description)


def parse_qpi_name(description: str) -> str:
    """Name of the channel that one page of a QPTIFF (PerkinElmer, Akoya) holds; "" if it has none.

    >>> parse_qpi_name(f"<{_QPI}><Name>DAPI</Name><Biomarker>nuclei</Biomarker></{_QPI}>")
    'DAPI'
    """
    try:
        root = parse_xml(description)
    except XmlError:
        return ""
    texts = ((item.text or "").strip() for name in ("Name", "Biomarker") for item in children(root, name))
    return next((text for text in texts if text), "")


def _qpi(tif: tifffile.TiffFile, series: Any) -> Calibration:
    pages = [page for page in series if page is not None]
    return calibration_of({}, [parse_qpi_name(page.aspage().description) for page in pages])


def _scn(tif: tifffile.TiffFile, series: Any) -> Calibration:
    """Leica: the size of a view in nm, over its pixels."""
    root = parse_xml(tif.pages.first.description)
    height, width = series.keyframe.shaped[2:4]
    found = set()
    for image in (item for item in root.iter() if tag(item) == "image"):
        views, pixels = list(children(image, "view")), list(children(image, "pixels"))
        if views and pixels and _counts(pixels[0]) == (height, width):
            view = [parse_number(views[0].get(f"size{axis}")) for axis in "YX"]
            found.add(tuple(side / n if side else None for side, n in zip(view, (height, width), strict=True)))
    if len(found) != 1:
        return Calibration()
    return calibration_of(
        {axis: read_size(step, "nm", f"view/size{axis.upper()}") for axis, step in zip("yx", *found, strict=True)}
    )


def _counts(pixels: Element) -> tuple[float | None, ...]:
    return tuple(parse_number(pixels.get(f"size{axis}")) for axis in "YX")


def _lsm(tif: tifffile.TiffFile, series: Any) -> Calibration:
    """Zeiss LSM: voxels in metres, where 0 stands for none."""
    said = tif.lsm_metadata or {}
    sizes = {axis: _unless_zero(said, f"VoxelSize{axis.upper()}", "m") for axis in "zyx"}
    sizes["t"] = _unless_zero(said, "TimeIntervall", "s", "time")
    return calibration_of(sizes, (said.get("ChannelColors") or {}).get("ColorNames", ()))


def _unless_zero(said: Mapping[str, Any], name: str, unit: str, kind: Any = "space") -> Size:
    value = said.get(name)
    return Size() if parse_number(value) == 0 else read_size(value, unit, name, kind)


def _stk(tif: tifffile.TiffFile, series: Any) -> Calibration:
    """MetaMorph STK: sizes along y and x, and distances of planes, in a unit that it names."""
    said = tif.stk_metadata or {}
    unit = said.get("CalibrationUnits", "")
    sizes = {}
    if said.get("SpatialCalibration", True):
        sizes = {axis: _unless_zero(said, f"{axis.upper()}Calibration", unit) for axis in "yx"}
    distances = {abs(float(value)) for value in said.get("ZDistance", ())}
    if len(distances) == 1:
        sizes["z"] = _unless_zero({"ZDistance": distances.pop()}, "ZDistance", unit)
    elif distances:
        sizes["z"] = Size(None, "the file's distances between planes differ; they are not used")
    return calibration_of(sizes)


def _fluoview(tif: tifffile.TiffFile, series: Any) -> Calibration:
    """Olympus FluoView: (name, count, origin, step, unit) of each dimension."""
    sizes = {}
    for name, _, _, step, unit in (tif.fluoview_metadata or {}).get("Dimensions", ()):
        axis = {"X": "x", "Y": "y", "Z": "z", "T": "t", "TIME": "t"}.get(str(name).upper())
        if axis and unit:
            sizes[axis] = _unless_zero({name: step}, name, unit, "time" if axis == "t" else "space")
    return calibration_of(sizes)


def _sis(tif: tifffile.TiffFile, series: Any) -> Calibration:
    """Olympus SIS: pixels in metres."""
    said = tif.sis_metadata or {}
    return calibration_of({axis: _unless_zero(said, f"pixelsize{axis}", "m") for axis in "yx"})


def _sem(tif: tifffile.TiffFile, series: Any) -> Calibration:
    """Zeiss electron microscopes: (name, value, unit)."""
    said = tif.sem_metadata or {}
    found = next((said[key] for key in ("ap_image_pixel_size", "ap_pixel_size") if len(said.get(key, ())) == 3), None)
    size = Size() if found is None else read_size(found[1], found[2], found[0])
    return calibration_of({"y": size, "x": size})


def _fei(tif: tifffile.TiffFile, series: Any) -> Calibration:
    """FEI and Thermo Fisher electron microscopes: pixels in metres."""
    scan = (tif.fei_metadata or {}).get("Scan", {})
    return calibration_of({axis: _unless_zero(scan, n, "m") for axis, n in (("y", "PixelHeight"), ("x", "PixelWidth"))})


def _metaseries(tif: tifffile.TiffFile, series: Any) -> Calibration:
    """Molecular Devices MetaSeries: sizes in a unit that it names."""
    said = (tif.metaseries_metadata or {}).get("PlaneInfo", {})
    if str(said.get("spatial-calibration-state", True)).lower() in ("false", "off"):
        return Calibration()
    unit = said.get("spatial-calibration-units", "")
    return calibration_of({axis: _unless_zero(said, f"spatial-calibration-{axis}", unit) for axis in "yx"})


def _micromanager(tif: tifffile.TiffFile, series: Any) -> Calibration:
    """Micro-Manager: um and ms, where 0 stands for none."""
    said = (tif.micromanager_metadata or {}).get("Summary", {})
    step = {"z-step_um": abs(parse_number(said.get("z-step_um")) or 0)}
    pixel = _unless_zero(said, "PixelSize_um", "um")
    names = said.get("ChNames", ())
    return calibration_of(
        {
            "z": _unless_zero(step, "z-step_um", "um"),
            "y": pixel,
            "x": pixel,
            "t": _unless_zero(said, "Interval_ms", "ms", "time"),
        },
        names if isinstance(names, list | tuple) else (),
    )


def _is(flag: str) -> Callable[[tifffile.TiffFile, Any, int], bool]:
    """Whether tifffile recognises a file, for its main series."""
    return lambda tif, series, number: number == _MAIN and bool(getattr(tif, f"is_{flag}"))


def _is_micromanager(tif: tifffile.TiffFile, series: Any, number: int) -> bool:
    return bool(tif.is_micromanager)  # series are positions on one stage


def _is_qpi(tif: tifffile.TiffFile, series: Any, number: int) -> bool:
    return number == _MAIN and _QPI in series.keyframe.description


Applies = Callable[[tifffile.TiffFile, Any, int], bool]
DIALECTS: tuple[tuple[str, Applies, Callable[[tifffile.TiffFile, Any], Calibration]], ...] = (
    ("Aperio", _is("svs"), _aperio),
    ("Philips", _is("philips"), _philips),
    ("QPTIFF", _is_qpi, _qpi),
    ("Leica SCN", _is("scn"), _scn),
    ("LSM", _is("lsm"), _lsm),
    ("STK", _is("stk"), _stk),
    ("MetaSeries", _is("metaseries"), _metaseries),
    ("FluoView", _is("fluoview"), _fluoview),
    ("Olympus SIS", _is("sis"), _sis),
    ("Zeiss SEM", _is("sem"), _sem),
    ("FEI", _is("fei"), _fei),
    ("Micro-Manager", _is_micromanager, _micromanager),
)
