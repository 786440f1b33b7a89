"""The one thing of EXIF that changes pixels: how the picture is to be turned."""

import struct

_ORIENTATION, _SHORT = 274, 3
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}


def read_orientation(exif: bytes) -> int:
    r"""`Orientation` of an EXIF block, which begins like a TIFF file; 1 (as it is stored) if it does not say it.

    >>> read_orientation(b"II*\0" + bytes([8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]))
    6
    """
    order = _ORDERS.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (n_tags,) = struct.unpack_from(f"{order}H", exif, start)
        for number in range(n_tags):
            tag, kind, n_values, value = struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * number)
            if (tag, kind, n_values) == (_ORIENTATION, _SHORT, 1):
                return int(value)
    except struct.error:  # cut short
        return 1
    return 1
