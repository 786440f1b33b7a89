"""Write damaged metadata again whose bytes the manifest proves: manifests first, then what they list."""

from segment_slide.pipeline.errors import OutputError, PipelineError
from segment_slide.pipeline.integrity.contents import Contents
from segment_slide.pipeline.integrity.files import find_homes, maker_of
from segment_slide.pipeline.integrity.guesses import guess_metadata
from segment_slide.pipeline.integrity.restore import restore_file, restore_manifest
from segment_slide.pipeline.manifest.manifest import FILE, Digest, read_manifest
from segment_slide.pipeline.storage.store import join


def restore_metadata(contents: Contents, keys: list[str]) -> None:
    """Write damaged metadata again, as far as their bytes can be found.

    Parameters
    ----------
    contents : Contents
        The store.
    keys : list of str
        Damaged or missing files in it.

    Raises
    ------
    OutputError
        Naming those that cannot be written again; the others are.
    """
    lists = {key for key in keys if key == FILE or key.endswith(f"/{FILE}")}
    failed = [key for key in sorted(lists) if not restore_manifest(join(contents.location, key.removesuffix(FILE)))]
    known = known_digests(contents)
    failed += [key for key in sorted(set(keys) - lists) if not _restore(contents, key, known)]
    if failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise OutputError(
            f"{join(contents.location, failed[0])}{more} cannot be made again: the checksum is known, but not the "
            f"bytes that belong to it. Restore the file from a copy, or delete the output and run its command again."
        )


def known_digests(contents: Contents) -> dict[str, Digest]:
    """Checksums of the files of a store, by file; without those of manifests that are damaged."""
    known: dict[str, Digest] = {}
    for home in find_homes(contents.location):
        try:
            manifest = read_manifest(join(contents.location, home))
        except PipelineError:
            continue
        known |= {join(home, key): digest for key, digest in (manifest.files if manifest else {}).items()}
    return known


def _restore(contents: Contents, key: str, known: dict[str, Digest]) -> bool:
    digest = known.get(key)
    if digest is None:
        return False
    return restore_file(contents.location, key, digest, guess_metadata(contents, key, maker_of(contents, key)))
