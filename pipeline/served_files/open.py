"""Open the files of a store, whatever it is: a folder, an object store, a web server, with or without conversion."""

from segment_slide.pipeline.served_files.files import Files
from segment_slide.pipeline.served_files.local_files import LocalFiles
from segment_slide.pipeline.storage.store import is_remote, resolve_location
from segment_slide.pipeline.zarr_stores.archive import split_archive
from segment_slide.pipeline.zarr_stores.checked import has_listing


def open_files(location: str, dtype: str | None = None) -> Files:
    """Open the files of the store at a location.

    Parameters
    ----------
    location : str
        A local path, a path in a zip archive, or a URL that fsspec knows.
    dtype : str, optional
        Data type that all arrays are converted to while they are read.
    """
    location = resolve_location(location)
    if dtype is not None:
        from segment_slide.pipeline.served_files.converted_files import ConvertedFiles

        return ConvertedFiles(location, dtype)
    if split_archive(location):
        from segment_slide.pipeline.served_files.archive_files import ArchiveFiles

        return ArchiveFiles(location)
    if not is_remote(location):
        return LocalFiles(location)
    if not has_listing(location):
        from segment_slide.pipeline.served_files.web_files import WebFiles

        return WebFiles(location)
    from segment_slide.pipeline.served_files.remote_files import RemoteFiles

    return RemoteFiles(location)
