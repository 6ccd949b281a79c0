"""After a restart: responses that were accepted, and not yet part of their conversations, are.

A response is in the journal before it is in its conversation. Between the two there are some
milliseconds, in which its server may have been killed. Its client repeats its request, mostly; and
where that is gone, too, what was accepted is done all the same.
"""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from llcuda_net.errors import RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.responses.response_format import form_of_api
from llcuda_net.server.objects import KeptObjects
from llcuda_net.storage.objects import conversations, entries
from llcuda_net.storage.objects.entries import ROOT
from llcuda_net.storage.objects.interface import Database

log = structlog.get_logger(__name__)


async def settle(objects: KeptObjects, generations: Iterable[Generation]) -> None:
    """Put generations that the last server left where they stand in their conversations.

    What cannot be put there goes on, as one that is part of none.
    """
    for generation in generations:
        form = form_of_api(generation.api)
        if form is None or form.conversation is None or form.behind is None:
            continue
        id_, behind = form.conversation, form.behind

        def write(
            db: Database, of: Generation = generation, id_: str = id_, behind: str = behind
        ) -> bool:
            return _settle(db, of, id_, behind)

        try:
            added = await objects.write(write)
        except RequestError as error:
            log.warning("response_not_added", generation=generation.id, reason=error.message)
        else:
            if added:
                log.info("response_added", generation=generation.id, conversation=id_)


def _settle(db: Database, generation: Generation, id_: str, behind: str) -> bool:
    """Whether it was not there, and is now."""
    found = conversations.get(db, id_, None, to_change=True)
    if found is None or entries.find(db, found, generation.id) is not None:
        return False
    parent = ROOT
    if behind:
        before = entries.find(db, found, behind)
        if before is not None:
            parent = before.seq
        elif found.size:  # it was an item, and was deleted since: at the end, then
            parent = found.head
        else:
            parent = entries.add_generation(db, found, behind, parent=ROOT)
    entries.add_generation(db, found, generation.id, parent=parent)
    return True
