"""Arrays whose chunks cannot claim more memory than their shape: 200 bytes may say that they are 2 GB.

Decoders ask for what a compressed chunk claims, or grow for as long as it goes on. Here the claim is compared with the
chunk's shape first, and what has no claim is decoded up to the limit only. Codecs that we do not know are left alone.
"""

import asyncio
import bz2
import copy
import gzip
import io
import lzma
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numcodecs
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import ShardingCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer

_SLACK_BYTES = 4096  # checksums and headers of codecs inside others
_FILTER_GROWTH = 16  # a filter may store each value as a wider one
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MOST_LZMA_BYTES = 1 << 30  # its dictionary; the largest that its own program makes takes 64 MB
_KNOWN = ("zstd", "blosc", "gzip", "zlib", "lz4", "bz2", "lzma")


class TooLargeError(ValueError):
    """A chunk claims more than its shape allows."""


def bounded(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """The same array for reading, with a limit for each chunk that is decoded."""
    metadata: Any = copy.copy(array.metadata)
    if metadata.zarr_format == 3:
        object.__setattr__(metadata, "codecs", tuple(map(_bound, metadata.codecs)))
    elif metadata.compressor is not None and _known_name(metadata.compressor.codec_id):
        itemsize = metadata.dtype.to_native_dtype().itemsize
        limit = _limit(metadata.chunks, itemsize) * (_FILTER_GROWTH if metadata.filters else 1)
        object.__setattr__(metadata, "compressor", _BoundedCompressor(metadata.compressor, limit))
    return zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=array.store_path, config=array._async_array.config))


def check_claim(name: str, content: bytes, limit: int) -> bytes | None:
    """Compare what a compressed chunk claims with a limit; decode it here if it claims nothing.

    Parameters
    ----------
    name : str
        One of zstd, blosc, gzip, zlib, lz4, bz2, lzma.
    content : bytes
        The compressed chunk.
    limit : int
        Bytes that it may become.

    Returns
    -------
    bytes or None
        The decoded chunk; None if the codec itself may decode it.

    Raises
    ------
    TooLargeError
        If it claims, or becomes, more.

    Examples
    --------
    >>> check_claim("gzip", gzip.compress(b"abc"), 3)
    b'abc'
    >>> check_claim("gzip", gzip.compress(bytes(1000)), 3)
    Traceback (most recent call last):
    ...
    segment_slide.pipeline.limits.bounded.TooLargeError: the chunk becomes more than the 3 bytes that its shape allows
    """
    if name == "zstd":
        return _check_zstd(content, limit)
    if name in ("blosc", "lz4"):
        at = 4 if name == "blosc" else 0
        _expect(int.from_bytes(content[at : at + 4], "little"), limit)
        return None
    found = _decode(name, content, limit + 1)
    if found is not None and len(found) > limit:
        raise TooLargeError(f"the chunk becomes more than the {limit:,} bytes that its shape allows")
    return found


def _decode(name: str, content: bytes, most: int) -> bytes | None:
    if name == "gzip":
        return gzip.GzipFile(fileobj=io.BytesIO(content)).read(most)
    if name == "bz2":
        return bz2.BZ2File(io.BytesIO(content)).read(most)
    if name == "zlib":
        return zlib.decompressobj().decompress(content, most)
    if content.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor(memlimit=_MOST_LZMA_BYTES).decompress(content, most)
    return None  # lzma with filters of its own


def _check_zstd(content: bytes, limit: int) -> bytes | None:
    size = _zstd_size(content)
    if size is not None:
        _expect(size, limit)
        return None
    import pyarrow as pa

    with pa.CompressedInputStream(pa.BufferReader(content), "zstd") as stream:
        found: bytes = stream.read(limit + 1)
    if len(found) > limit:
        raise TooLargeError(f"the chunk becomes more than the {limit:,} bytes that its shape allows")
    return found


def _zstd_size(content: bytes) -> int | None:
    """What the frames of a chunk claim (RFC 8878, 3.1.1.1); None if they do not say. Damaged: the decoder says how.

    >>> _zstd_size(bytes.fromhex("28b52ffd a000000080")), _zstd_size(bytes.fromhex("28b52ffd 0058"))
    (2147483648, None)
    """
    if len(content) < 6 or content[:4] != _ZSTD_MAGIC:
        return 0
    descriptor = content[4]
    is_single, size_flag, dictionary_flag = descriptor >> 5 & 1, descriptor >> 6, descriptor & 3
    n_bytes = (1 if is_single else 0, 2, 4, 8)[size_flag]
    if not n_bytes:
        return None
    at = 5 + (not is_single) + (0, 1, 2, 4)[dictionary_flag]
    return int.from_bytes(content[at : at + n_bytes], "little") + (256 if n_bytes == 2 else 0)


def _expect(claimed: int, limit: int) -> None:
    if claimed > limit:
        raise TooLargeError(f"the chunk claims to become {claimed:,} bytes, but its shape allows {limit:,} at most")


def _limit(shape: tuple[int, ...], itemsize: int) -> int:
    n_bytes = itemsize
    for size in shape:
        n_bytes *= size
    return n_bytes + n_bytes // 8 + _SLACK_BYTES


def _known_name(name: str) -> str:
    short = name.removeprefix("numcodecs.")
    return short if short in _KNOWN else ""


def _bound(codec: Any) -> Any:
    if isinstance(codec, ShardingCodec):
        return replace(codec, codecs=tuple(map(_bound, codec.codecs)))
    if isinstance(codec, BytesBytesCodec) and (name := _known_name(str(codec.to_dict().get("name")))):
        return _BoundedCodec(codec, name)
    return codec


@dataclass(frozen=True)
class _BoundedCodec(BytesBytesCodec):
    """A codec of format 3, and its limit: that of the chunk which it is given."""

    inner: BytesBytesCodec
    name: str
    is_fixed_size = False

    def to_dict(self) -> dict[str, Any]:
        return self.inner.to_dict()

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        return self.inner.compute_encoded_size(input_byte_length, chunk_spec)

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> "_BoundedCodec":
        return replace(self, inner=self.inner.evolve_from_array_spec(array_spec))

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        dtype = chunk_spec.dtype.to_native_dtype()
        if dtype.hasobject:
            return await self.inner._decode_single(chunk_data, chunk_spec)
        content, limit = chunk_data.to_bytes(), _limit(chunk_spec.shape, dtype.itemsize)
        is_quick = self.name in ("blosc", "lz4") or (self.name == "zstd" and _zstd_size(content) is not None)
        arguments = (self.name, content, limit)  # what is decoded here is decoded beside other chunks
        found = check_claim(*arguments) if is_quick else await asyncio.to_thread(check_claim, *arguments)
        if found is not None:
            return chunk_spec.prototype.buffer.from_bytes(found)
        return await self.inner._decode_single(chunk_data, chunk_spec)

    async def _encode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer | None:
        return await self.inner._encode_single(chunk_data, chunk_spec)


class _BoundedCompressor(numcodecs.abc.Codec):
    """A compressor of format 2 with the limit of its array's chunks."""

    codec_id = "bounded"

    def __init__(self, inner: Any, limit: int) -> None:
        self.inner, self.limit, self.codec_id = inner, limit, inner.codec_id

    def encode(self, buf: Any) -> Any:
        return self.inner.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        found = check_claim(_known_name(self.codec_id), bytes(buf), self.limit)
        return self.inner.decode(buf, out) if found is None else found

    def get_config(self) -> Any:
        return self.inner.get_config()
