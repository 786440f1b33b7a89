"""A checksum inside a safetensors file, so that one flipped bit is an error and not another network.

The file's JSON header has a field `file_sha256`: the sha256 of the whole file with 64 zeros in place of these digits.
A file without the field, as older versions wrote them, is not checked.
"""

import hashlib
import re
from pathlib import Path

from segment_slide.unet.errors import CheckpointError

FIELD = "file_sha256"
EMPTY = "0" * 64  # value of the field before the checksum is known
_PLACE = re.compile(rb'\\"' + FIELD.encode() + rb'\\": \\"([^"\\]{64})\\"')
_LENGTH_BYTES = 8  # a safetensors file begins with the length of its header
_MOST_HEADER_BYTES = 100_000_000  # as safetensors itself allows
_PIECE_BYTES = 1 << 22


def with_checksum(content: bytes) -> bytes:
    """A whole safetensors file whose field is still `EMPTY`, with the checksum in it.

    Raises
    ------
    CheckpointError
        If the header has no such field.
    """
    found = _PLACE.search(content, 0, _LENGTH_BYTES + _header_bytes(content))
    if found is None:
        raise CheckpointError(f"the header has no field {FIELD!r}.")
    digest = hashlib.sha256(content).hexdigest().encode()
    return b"".join((content[: found.start(1)], digest, content[found.end(1) :]))


def expect_as_written(path: Path) -> None:
    """Refuse a file of which any bit differs from what was written.

    Raises
    ------
    CheckpointError
        Saying what to do.
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as file:
        length = file.read(_LENGTH_BYTES)
        head = length + file.read(min(_header_bytes(length), _MOST_HEADER_BYTES))
        found = _PLACE.search(head)
        if found is None:
            return
        digest = hashlib.sha256(head[: found.start(1)] + EMPTY.encode() + head[found.end(1) :])
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    if digest.hexdigest().encode() != found[1]:
        raise CheckpointError(
            f"{path} is damaged: its sha256 is not the one that it was written with. Copy it again, or make it again."
        )


def _header_bytes(content: bytes) -> int:
    return int.from_bytes(content[:_LENGTH_BYTES], "little")


def hash_file(path: Path) -> str:
    """Hexadecimal sha256 of a whole file, read in parts."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
