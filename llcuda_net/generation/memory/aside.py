"""A generation that stops here without an end, as a start would find it in the journal."""

from __future__ import annotations

from llcuda_net.generation.generation import Generation
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.packed_log import CHUNK, Chunk, PackedLog, unless_ones
from llcuda_net.storage.records import Appended, Concluded, Dispatched
from llcuda_net.storage.starting import Recovered


def set_aside(generation: Generation, entry: JournalEntry) -> Recovered:
    """What there is of a suspended generation, as far as its entry in the journal has it."""
    whole = entry.count >= generation.count
    concluded = None
    if whole and (generation.final is not None or generation.concluded):
        outcome = generation.outcome
        concluded = Concluded(reason=outcome.reason, stop=outcome.stop, usage=outcome.usage)
    dispatched = None
    if generation.model:
        dispatched = Dispatched(
            upstream=generation.upstream, model=generation.model, prompt=generation.rendered
        )
    log = generation.packed or _packed(generation, entry)
    return Recovered(entry, log, False, dispatched, concluded, generation.cancelled)


def _packed(generation: Generation, entry: JournalEntry) -> PackedLog:
    chunks = []
    for first in range(0, entry.count, CHUNK):
        cut = slice(first, min(first + CHUNK, entry.count))
        logprobs = generation.logprobs
        record = Appended(
            0,
            first,
            generation.pieces[cut],
            generation.ids[cut],
            None if logprobs is None else logprobs[cut],
            unless_ones(generation.counts[cut]),
            len(entry.switches),
        )
        chunks.append(Chunk.of(record, cut.stop))
    return PackedLog(chunks)
