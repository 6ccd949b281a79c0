"""Copies embeddings from one store into another that has its results, under other numbers.

Done again, it adds what is left: an embedding that is there stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable

from llcuda_net.storage.results.interface import Analyses, Space, Store

#: Results whose numbers are looked up at once; and damaged embeddings that are looked for.
_PAGE, _LOST = 1000, 10_000


def transfer_embeddings(
    source: Store, target: Store, done: Callable[[int], None] = lambda _: None
) -> None:
    """Copy the embeddings of all results that the target has. Blocks.

    What the source has not embedded yet, the target goes on with.

    Args:
        done: told of each batch, by its size.

    Raises:
        StorageError: a store cannot be read, or not be written; what is copied stays.
    """
    for old in reversed(source.analyses.spaces()):  # the oldest first: the newest is to stay so
        new = _space_of(target.analyses, old)
        for page in source.analyses.embeddings(old.id):
            shown = source.analyses.summaries([one.seq for one in page])
            ids = {seq: summary.id for seq, (summary, _) in shown.items()}
            numbers = target.analyses.numbers(ids.values())
            rows = [
                (numbers[ids[one.seq]], one.scale, one.codes)
                for one in page
                if ids.get(one.seq) in numbers
            ]
            target.analyses.embed(new.id, 0, rows)
            done(len(page))
        target.analyses.embed(new.id, _embedded(source.analyses, old, target.analyses, new), [])


def _space_of(target: Analyses, old: Space) -> Space:
    """The same space there."""
    for space in target.spaces():
        if (space.model, space.dim, space.recipe) == (old.model, old.dim, old.recipe):
            return space
    return target.open_space(old.model, old.dim, old.recipe)


def _embedded(source: Analyses, old: Space, target: Analyses, new: Space) -> int:
    """Up to which number all results of the target are embedded, those without a text apart."""
    lost = {one.seq for one in source.unembedded(old.seq, _LOST, old.id)}
    last = new.seq
    while page := target.numbered(last, _PAGE):
        numbers = source.numbers([id_ for _, id_ in page])
        for seq, id_ in page:
            number = numbers.get(id_)
            if number is None or number > old.seq or number in lost:
                return last
            last = seq
    return last
