"""Notes that a night writes in and beside an output: begun, failed, done, and questions for a person.

Each note is a small JSON file, written completely or not at all. A damaged note is ignored.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.manifest.sealing import seal_file, unseal_file
from segment_slide.pipeline.metadata.json_text import parse_object
from segment_slide.pipeline.nights.acquisitions import Acquisition
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.files import delete, read_file, write_file
from segment_slide.pipeline.storage.fingerprint import is_by_times
from segment_slide.pipeline.storage.record import code_version
from segment_slide.pipeline.storage.sections import OPTIONAL, Section, read_section, write_section

Note = TypeVar("Note", bound=Section)

log = logging.getLogger(__name__)

DONE_FILE = "segment-slide.done.json"
_CHECKSUM = "sha256"  # key of a note: of all its other keys
BEGUN_SUFFIX, FAILED_SUFFIX, QUESTIONS_SUFFIX = ".begun.json", ".failed.json", ".questions.json"


@dataclass(frozen=True)
class Done(Section):
    """What the last file of an output says.

    Attributes
    ----------
    name, fingerprint, size_bytes, n_files
        Those of the acquisition.
    model_sha256 : str
        sha256 of the checkpoint.
    n_objects : int or None
        Number of objects; None if none were numbered.
    n_pixels : int
        Pixels of the label image.
    stage_seconds : dict
        Wall time per stage, of the run that finished the output.
    code_version : str
        Version of this package.
    times : str
        Times of the files, so that the next night need not read them; "" in notes of earlier versions.
    """

    name: str
    fingerprint: str
    size_bytes: int
    n_files: int
    model_sha256: str
    n_objects: int | None
    n_pixels: int
    stage_seconds: Mapping[str, float]
    code_version: str
    times: str = field(default="", metadata=OPTIONAL)


@dataclass(frozen=True)
class Begun(Section):
    """The note beside an output that is being made: of what content of the acquisition."""

    fingerprint: str
    times: str = field(default="", metadata=OPTIONAL)


@dataclass(frozen=True)
class Failure(Section):
    """The note beside the output of an acquisition that failed.

    Attributes
    ----------
    tries : int
        How often this content has failed.
    reason : str
        The error of the last try.
    fingerprint : str
        Fingerprint of the content that failed; after a change, counting starts again.
    model_sha256, last
        Model and time (UTC) of the last try.
    times : str
        As in `Done`.
    """

    tries: int
    reason: str
    fingerprint: str
    model_sha256: str
    last: str
    times: str = field(default="", metadata=OPTIONAL)


# -- done ----------------------------------------------------------------------------------------------------------


def read_done(output: str) -> Done | None:
    """Read the last file of an output; None if the output is not finished."""
    return _read_note(Done, store.join(output, DONE_FILE))


def write_done(
    output: str, acquisition: Acquisition, model_sha256: str, n_objects: int | None, n_pixels: int, seconds: Any
) -> Done:
    """Write the file that marks an output as finished."""
    done = Done(
        name=acquisition.name,
        fingerprint=acquisition.fingerprint,
        size_bytes=acquisition.size_bytes,
        n_files=acquisition.n_files,
        model_sha256=model_sha256,
        n_objects=n_objects,
        n_pixels=n_pixels,
        stage_seconds={stage: round(value, 3) for stage, value in seconds.items()},
        code_version=code_version(),
        times=acquisition.times,
    )
    unseal_file(output, DONE_FILE)
    _write_json(store.join(output, DONE_FILE), write_section(done))
    seal_file(output, DONE_FILE)
    return done


def renew_done(output: str, acquisition: Acquisition) -> None:
    """Replace times of files by a fingerprint of content, in the note of an output that an earlier version made."""
    done = read_done(output)
    if done is not None and is_by_times(done.fingerprint) and acquisition.is_as(done.fingerprint):
        renewed = replace(done, fingerprint=acquisition.fingerprint, times=acquisition.times)
        was_sealed = unseal_file(output, DONE_FILE)
        _write_json(store.join(output, DONE_FILE), write_section(renewed))
        if was_sealed:  # an output of an earlier version has no manifest, and gets none of this file alone
            seal_file(output, DONE_FILE)


# -- begun and failed ----------------------------------------------------------------------------------------------


def failure_path(output: str) -> str:
    """Path of the note of a failure."""
    return f"{output}{FAILED_SUFFIX}"


def read_failure(output: str) -> Failure | None:
    """Read the note of a failure beside an output; None if there is none."""
    return _read_note(Failure, failure_path(output))


def write_failure(output: str, failure: Failure) -> None:
    """Leave a note of a failure beside an output."""
    _write_json(failure_path(output), write_section(failure))


def write_begun(output: str, fingerprint: str, times: str = "") -> None:
    """Say of which content an output is being made, before anything is written of it: a kill leaves no other note."""
    _write_json(f"{output}{BEGUN_SUFFIX}", write_section(Begun(fingerprint, times)))


def begun_from(output: str) -> Begun | Failure | None:
    """The note of the content that an output was last begun from; None if there is none."""
    return _read_note(Begun, f"{output}{BEGUN_SUFFIX}") or read_failure(output)


def forget_tries(output: str) -> None:
    """Delete the notes beside a finished output, the note of its beginning first."""
    delete(f"{output}{BEGUN_SUFFIX}")
    delete(failure_path(output))


# -- questions -----------------------------------------------------------------------------------------------------


def read_questions(output: str) -> dict[str, str]:
    """Read the open questions about an output, by the name of the acquisition that it is (or would be) for."""
    found = _read_json(f"{output}{QUESTIONS_SUFFIX}") or {}
    return {name: question for name, question in found.items() if isinstance(question, str)}


def write_question(output: str, name: str, question: str) -> None:
    """Note what somebody was asked to decide about an acquisition; "" if there is nothing to decide any more."""
    before = read_questions(output)
    after = {**before, name: question} if question else {key: text for key, text in before.items() if key != name}
    if after and after != before:
        _write_json(f"{output}{QUESTIONS_SUFFIX}", after)
    if before and not after:
        delete(f"{output}{QUESTIONS_SUFFIX}")


# -- files ---------------------------------------------------------------------------------------------------------


def _read_note(kind: type[Note], path: str) -> Note | None:
    content = _read_json(path)
    try:
        return None if content is None else read_section(kind, content, path)
    except OutputError as error:
        log.warning("%s", error)
        return None


def _read_json(path: str) -> dict[str, Any] | None:
    try:
        return _checked(parse_object(read_file(path)), path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        log.warning("%s is damaged and not taken into account: %s.", path, error)
        return None
    except Exception as error:  # fsspec back ends raise classes of their own
        raise OutputError(f"{path} cannot be read: {error}") from error


def _checked(content: dict[str, Any], path: str) -> dict[str, Any] | None:
    """The content without its checksum; None if it is not what was written. Notes of older versions have none."""
    sha256 = content.pop(_CHECKSUM, None)
    if sha256 is not None and sha256 != _checksum(content):
        log.warning("%s is damaged and not taken into account: its sha256 is another one.", path)
        return None
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write_json(path: str, content: Mapping[str, Any]) -> None:
    checked = {**content, _CHECKSUM: _checksum(json.loads(json.dumps(content)))}
    write_file(path, (json.dumps(checked, indent=1) + "\n").encode())
