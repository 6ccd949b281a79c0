"""Which answer an id on the command line means: a whole id, the beginning of one, or `last`."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
#: How many generations are looked at for `last`, and for the beginning of an id.
_LOOKED_AT, _LISTED = 100, 1000
_OVER = ("done", "cancelled", "interrupted", "failed")
_RUNNING = ("queued", "running")
#: What an id of the server may begin with: the digits of a UUID.
_BEGINNING = re.compile(r"(?:resp_)?([0-9a-f-]{4,35})", re.IGNORECASE)


def previous_id(client: Client, wanted: str) -> str:
    """The id of the answer that --continue names; a note says which one `last` is.

    Raises:
        CommandError: there is none that is over.
        ConnectError, RequestError: the server cannot be asked.
    """
    if wanted != LAST:
        return _whole(client, wanted)
    for entry in _own(client):
        if entry.state in _OVER and (entry.state == "done" or entry.tokens):
            print_note(prog(), f"goes on with {entry.id}{_preview(entry)}")
            return entry.id
    raise CommandError(
        "--continue last: none of your newest answers is over; --list shows them", Exit.REFUSED
    )


def answer_id(client: Client, wanted: str, *, running: bool | None = None) -> str:
    """The id of the answer that --attach, --cancel or --delete names; a note says which is `last`.

    Args:
        running: whether `last` is the newest that runs or waits, or that is over; None: of all.

    Raises:
        CommandError: there is none, or several begin so.
        ConnectError, RequestError: the server cannot be asked.
    """
    if wanted != LAST:
        return _whole(client, wanted)
    states = {None: (*_RUNNING, *_OVER), True: _RUNNING, False: _OVER}[running]
    for entry in _own(client):
        if entry.state in states:
            print_note(prog(), f"{entry.id}{_preview(entry)}")
            return entry.id
    which = {None: "you have no answer", True: "none of yours runs", False: "none of yours is over"}
    raise CommandError(f"last: {which[running]}; --list shows them", Exit.REFUSED)


def _own(client: Client) -> Iterator[Entry]:
    """The newest of this user's: an admin's list has those of others."""
    user: str | None = None
    for entry in client.list(_LOOKED_AT):
        if entry.owner:
            user = client.status().get("user", "") if user is None else user
            if entry.owner != user:
                continue
        yield entry


def _whole(client: Client, given: str) -> str:
    """The one id that begins so; what begins none is given to the server as it is."""
    found = _BEGINNING.fullmatch(given)
    if found is None:
        return given
    begin = found[1].lower()
    ids = [one.id for one in client.list(_LISTED) if one.id.lower().startswith(begin)]
    if len(ids) > 1 and begin not in ids:
        some = ", ".join(ids[:3]) + (" …" if len(ids) > 3 else "")
        raise CommandError(f"{len(ids)} answers begin with {given!r}: {some}: give more of the id")
    return ids[0] if len(ids) == 1 else given


def _preview(entry: Entry) -> str:
    return f": {one_line(entry.preview)}" if entry.preview else ""
