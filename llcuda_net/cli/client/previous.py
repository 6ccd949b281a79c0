"""`llcuda-client --continue`: which answer it means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llcuda_net.cli.client.options import prog
from llcuda_net.cli.client.output import print_note
from llcuda_net.cli.common import CommandError, Exit
from llcuda_net.util.terminal import one_line

if TYPE_CHECKING:
    from llcuda_net.client.results import Entry
    from llcuda_net.sync import Client

#: What stands for the id of the newest one.
LAST = "last"
#: How many generations are looked at for it.
_LOOKED_AT = 100
_OVER = ("done", "cancelled", "interrupted", "failed")


def previous_id(client: Client, wanted: str) -> str:
    """The id of the answer that --continue names; a note says which one `last` is.

    Raises:
        CommandError: there is none that is over.
        ConnectError, RequestError: the server cannot be asked.
    """
    if wanted != LAST:
        return wanted
    user: str | None = None
    for entry in client.list(_LOOKED_AT):
        if entry.state not in _OVER or (entry.state != "done" and not entry.tokens):
            continue
        if entry.owner:  # an admin's list has those of others
            user = client.status().get("user", "") if user is None else user
            if entry.owner != user:
                continue
        print_note(prog(), f"goes on with {entry.id}{_preview(entry)}")
        return entry.id
    raise CommandError(
        "--continue last: none of your newest answers is over; --list shows them", Exit.REFUSED
    )


def _preview(entry: Entry) -> str:
    return f": {one_line(entry.preview)}" if entry.preview else ""
