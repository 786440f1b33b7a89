"""Which processors made which blocks of a segmentation, if it was not one kind for all of them.

The last bits of scores depend on the processor's instructions and on torch, so a run that goes on elsewhere is refused
unless the user accepts it. Then the record lists the kinds. All but the last have a list of blocks, by number in raster
order; all other blocks are of the last kind::

    begun by A              processors: none listed
    B goes on               A: blocks 0 to 41, 44      B: all others
    A goes on               B: blocks 42, 43, 45       A: all others

The list is written before the first block of another kind. So it is true whenever the run is killed.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from segment_slide.pipeline.storage.label_records import ProcessorUse, SegmentationRecord
from segment_slide.pipeline.storage.record import Code

Ranges = tuple[tuple[int, int], ...]


def processor_of(record: SegmentationRecord) -> ProcessorUse:
    """The kind of processor that a record was begun on, or that a record made now would be of."""
    parameters, code = record.parameters, record.code or Code()
    return ProcessorUse(parameters.device or "", parameters.processor or "", code.torch)


def is_known(begun: SegmentationRecord, here: ProcessorUse) -> bool:
    """Whether a kind of processor began a run, or was accepted for it before."""
    return any(_is_same(use, here) for use in _uses(begun))


def as_begun(wanted: SegmentationRecord, begun: SegmentationRecord) -> SegmentationRecord:
    """A record with the processor and torch of the one that was begun, to compare all else."""
    parameters = replace(wanted.parameters, device=begun.parameters.device, processor=begun.parameters.processor)
    torch = (begun.code or Code()).torch
    return replace(wanted, parameters=parameters, code=replace(wanted.code, torch=torch) if wanted.code else None)


def note_processor(
    begun: SegmentationRecord, here: ProcessorUse, done: Collection[Sequence[int]], counts: tuple[int, ...]
) -> SegmentationRecord:
    """The record with which a run goes on here: which blocks that are done came from which kind of processor.

    Parameters
    ----------
    begun : SegmentationRecord
        The record so far.
    here : ProcessorUse
        The kind of processor that does the pending blocks.
    done : collection of tuple of int
        Indices of the blocks that are stored.
    counts : tuple of int
        Blocks per axis.

    Returns
    -------
    SegmentationRecord
        Without a list as long as all blocks come from the kind that began the run; as it was if no block is pending.
    """
    if len(done) == math.prod(counts):  # nothing is made here
        return begun
    *closed, last = _uses(begun)
    others = _numbers(done, counts)
    uses = []
    for use in closed:
        own = np.intersect1d(_expand(use.blocks or ()), others)  # what is missing by now will be made here
        others = np.setdiff1d(others, own)
        uses.append(replace(use, blocks=_ranges(own)))
    uses.append(replace(last, blocks=_ranges(others)))
    kept = [use for use in uses if use.blocks and not _is_same(use, here)]
    is_as_begun = not kept and _is_same(processor_of(begun), here)
    return replace(begun, processors=() if is_as_begun else (*kept, replace(here, blocks=None)))


def _uses(record: SegmentationRecord) -> tuple[ProcessorUse, ...]:
    return record.processors or (processor_of(record),)


def _is_same(one: ProcessorUse, other: ProcessorUse) -> bool:
    """Whether two kinds are equal; what older versions did not record counts as equal."""
    pairs = ((one.device, other.device), (one.processor, other.processor), (one.torch, other.torch))
    return all(a == b or not a or not b for a, b in pairs)


def _numbers(indices: Collection[Sequence[int]], counts: tuple[int, ...]) -> np.ndarray:
    if not indices:
        return np.zeros(0, np.int64)
    return np.sort(np.ravel_multi_index(tuple(np.array(list(indices)).T), counts))


def _ranges(numbers: np.ndarray) -> Ranges:
    """Runs of rising numbers: the first of each, and the one after its last.

    >>> _ranges(np.array([0, 1, 2, 5, 7, 8]))
    ((0, 3), (5, 6), (7, 9))
    """
    if not len(numbers):
        return ()
    ends = np.flatnonzero(np.diff(numbers) > 1)
    firsts, lasts = numbers[np.concatenate([[0], ends + 1])], numbers[np.concatenate([ends, [len(numbers) - 1]])]
    return tuple((int(first), int(last) + 1) for first, last in zip(firsts, lasts, strict=True))


def _expand(ranges: Iterable[tuple[int, int]]) -> np.ndarray:
    """Inverse of `_ranges`."""
    return np.concatenate([np.zeros(0, np.int64), *(np.arange(first, stop) for first, stop in ranges)])
