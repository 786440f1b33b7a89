"""Parts of files that were read, compared with what lies there now."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from segment_slide.pipeline.reads.noted import Piece
from segment_slide.pipeline.storage.fingerprint import Read, open_pieces
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.store import join

_THREADS = 8


def find_differing(image: StoredImage, noted: Mapping[str, Sequence[Piece]], *, again: bool = True) -> set[str]:
    """Files of which something else was read than lies there now, or of which two reads differ.

    A file whose times are those of when it was read is not read again.

    Parameters
    ----------
    image : StoredImage
        The array.
    noted : mapping of str to sequence of Piece
        What was read, by file.
    again : bool
        Read files whose times differ once more. If not, only two reads of a run are compared.
    """
    base = join(image.location, image.array_path)
    read = open_pieces(base)

    def differs(name: str) -> bool:
        parts: dict[tuple[int, int | None], set[str]] = {}
        for piece in noted[name]:
            parts.setdefault((piece.start, piece.stop), set()).add(piece.digest)
        if any(len(digests) > 1 for digests in parts.values()):
            return True
        if not again:
            return False
        times = _times(os.path.join(base, name))
        if times and all(piece.times == times for piece in noted[name]):
            return False
        return any(_digest(read, name, piece) != piece.digest for piece in noted[name])

    with ThreadPoolExecutor(_THREADS) as threads:
        names = list(noted)
        return {name for name, found in zip(names, threads.map(differs, names), strict=True) if found}


def _times(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _digest(read: Read, name: str, piece: Piece) -> str:
    digest = hashlib.sha256()
    try:
        for content in read(name, piece.start, piece.stop):
            digest.update(content)
    except (FileNotFoundError, KeyError):
        return ""
    return digest.hexdigest()
