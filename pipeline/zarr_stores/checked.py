"""A Zarr store for reading that never lets something else pass for background, and whose errors say what happened."""

import errno
import json
from typing import Any

from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

from segment_slide.pipeline.limits.zarr_json import check_length, check_metadata, is_metadata

CONNECTING_S, SILENCE_S = 30.0, 60.0  # a web server that says nothing for so long counts as one that hangs


def is_web(location: str) -> bool:
    """Whether a location is an address of a web server.

    >>> is_web("https://host/slide.zarr"), is_web("s3://bucket/slide.zarr"), is_web("/data/slide.zarr")
    (True, False, False)
    """
    return location.lower().startswith(("http://", "https://"))


def has_listing(location: str) -> bool:
    """Whether the files of a location can be listed: folders and object stores allow it, web servers do not."""
    return not is_web(location)


def web_options(location: str) -> dict[str, Any]:
    """Options of fsspec for a location: a web server that hangs is an error; a slow line may take as long as it needs.

    What users have configured in fsspec comes first. Other stores get no options.
    """
    if not is_web(location):
        return {}
    import aiohttp
    import fsspec

    configured: dict[str, Any] = {}
    for protocol in ("http", "https"):
        configured |= fsspec.config.conf.get(protocol, {}).get("client_kwargs", {})
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECTING_S, sock_read=SILENCE_S)
    return {"client_kwargs": {"timeout": timeout, **configured}}


class CheckedStore(WrapperStore[Store]):
    """A store that refuses metadata that cannot be, and files of 0 bytes, which a power cut or a full disk leaves.

    zarr takes an empty shard for one that was never written and returns background: silently wrong pixels.
    Web servers that ignore the Range header send a whole file when a part is asked for; the part is cut out of it.
    Errors of a web server become errors of the system: they tell nothing of what is stored, and can be sent to another
    process.
    Metadata of format 2 that do not say how chunks are named get the separator that the names of the chunks have. Old
    programs left it out also where they wrote "0/1" and not "0.1".
    """

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """See `zarr.abc.store.Store.get`."""
        failure: OSError | None = None
        if is_metadata(key) and isinstance(self._store, LocalStore):
            check_length(key, self._store.root / key)
        try:
            value = await self._store.get(key, prototype, byte_range)
        except Exception as error:
            failure = _as_systems(error, key)
            if failure is None:
                raise
        if failure is not None:  # raised here, without the error of the web server, which cannot be sent
            raise failure
        if value is not None and byte_range is None and len(value) == 0:
            raise ValueError(f"{key} is an empty file")
        if value is not None and byte_range is None and is_metadata(key):
            check_metadata(key, value.to_bytes())
        if value is not None and key.rpartition("/")[2] == ".zarray":
            return await self._say_separator(key, value)
        return _cut_out(value, byte_range)

    async def _say_separator(self, key: str, value: Buffer) -> Buffer:
        try:
            content = json.loads(value.to_bytes())
            is_said = "dimension_separator" in content or len(content["shape"]) < 2
            if is_said or not await self._is_nested(key.rpartition("/")[0], len(content["shape"])):
                return value
        except (ValueError, KeyError, TypeError):  # damaged: zarr says how
            return value
        return value.from_bytes(json.dumps({**content, "dimension_separator": "/"}).encode())

    async def _is_nested(self, folder: str, n_axes: int) -> bool:
        """Whether chunks are called "0/1"; where nothing can be listed, whether the first one is."""
        start = f"{folder}/" if folder else ""
        if "http" in getattr(getattr(self._store, "fs", None), "protocol", ()):
            nested, flat = (start + separator.join("0" * n_axes) for separator in "/.")
            return await self._store.exists(nested) and not await self._store.exists(flat)
        async for name in self._store.list_dir(folder):
            if name.partition(".")[0].isdecimal():
                return name.isdecimal()
        return False


def _as_systems(error: Exception, key: str) -> OSError | None:
    """An error of a web server as one of the system; None for other errors."""
    if isinstance(error, TimeoutError):
        return OSError(errno.ETIMEDOUT, f"{key}: no answer in time")
    if type(error).__module__.startswith("aiohttp"):
        return OSError(errno.EIO, f"{key}: {type(error).__name__}: {error}")
    return None


def _cut_out(value: Buffer | None, byte_range: ByteRequest | None) -> Buffer | None:
    """The wanted part, if more than it was sent: then it is the whole file. A file is longer than a part's end."""
    if value is None:
        return None
    if isinstance(byte_range, RangeByteRequest) and len(value) > byte_range.end - byte_range.start:
        return value[byte_range.start : byte_range.end]
    if isinstance(byte_range, SuffixByteRequest) and len(value) > byte_range.suffix:
        return value[-byte_range.suffix :]
    return value
