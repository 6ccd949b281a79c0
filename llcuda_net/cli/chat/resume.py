"""Which conversation a chat begins with: a new one, or one that the server has."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llcuda_net.cli.chat.api import ConversationApi
from llcuda_net.cli.chat.kept import KeptTalk, messages_of, newest
from llcuda_net.cli.chat.questions import text_of
from llcuda_net.cli.chat.talk import LocalTalk, Talk
from llcuda_net.cli.client.named import LAST, previous_id
from llcuda_net.cli.client.options import prog
from llcuda_net.cli.client.output import print_note
from llcuda_net.cli.common import CommandError, Exit
from llcuda_net.client.requests import generation_id
from llcuda_net.errors import ConnectError, RequestError
from llcuda_net.sync import Client
from llcuda_net.util.terminal import one_line

_PREFIX = "conv_"
#: What an id, or the beginning of one, is.
_WHOLE = re.compile(_PREFIX + "[0-9a-f]{32}")
_BEGINNING = re.compile("(conv_|resp_)?([0-9a-f-]{4,36})", re.IGNORECASE)
_LOOKED_AT = 100
_OVER = ("done", "cancelled", "interrupted", "failed")


@dataclass(slots=True)
class Resumed:
    """A conversation to go on with.

    Attributes:
        answer: the id of its last answer, to be shown; None: there is none.
        question: what that answers, in words; "": that is not known.
        system: the system message of that answer.
    """

    talk: Talk
    answer: str | None = None
    question: str = ""
    system: str | None = None


@dataclass(slots=True)
class Beginning:
    """How the conversations of a chat begin.

    Attributes:
        api: where the server's conversations are.
        arguments: what goes with every request.
        wanted: the id of a conversation or an answer, the beginning of one, or `last`; None: a new
            conversation.
        keeps: whether new ones are kept on the server.
        tell: says why they are not, if they cannot be.
    """

    api: ConversationApi
    arguments: dict[str, Any]
    wanted: str | None
    keeps: bool
    tell: Callable[[str], object]
    _there: bool | None = field(default=None, init=False)

    def __call__(self, client: Client, new: bool) -> Resumed:
        """The first conversation, or (`new`) another one.

        Raises:
            CommandError, ConnectError, RequestError: there is none that is wanted.
        """
        if new or self.wanted is None:
            there = self.keeps and self._has_conversations()
            talk: Talk = KeptTalk(self.api, self.arguments) if there else LocalTalk(self.arguments)
            return Resumed(talk)
        if not self._has_conversations(quietly=not self.keeps):
            answer = previous_id(client, self.wanted)
            return Resumed(LocalTalk(self.arguments, answer), answer)
        conversation, answer_ = self._find(client, self.wanted)
        if conversation is not None:
            return self._in_conversation(conversation, answer_)
        assert answer_ is not None
        if not self.keeps:
            return Resumed(LocalTalk(self.arguments, answer_), answer_)
        return Resumed(KeptTalk(self.api, self.arguments, previous=answer_), answer_)

    def _has_conversations(self, *, quietly: bool = False) -> bool:
        if self._there is None:
            try:
                self.api.check()
                self._there = True
            except (ConnectError, RequestError) as error:
                self._there = False
                if not quietly:
                    self.tell(f"the server keeps no conversation of this chat: {error}")
        return self._there

    def _in_conversation(self, conversation: str, answer: str | None) -> Resumed:
        entry = newest(self.api, conversation, path=answer)
        if entry is None or entry["type"] != "response":
            return Resumed(KeptTalk(self.api, self.arguments, conversation=conversation))
        asked = messages_of(entry["input"])
        talk = KeptTalk(
            self.api,
            self.arguments,
            conversation=conversation,
            previous=None if answer is None else entry["id"],
            last=entry["id"],
            asked=asked,
        )
        question = text_of(asked) or ""
        return Resumed(talk, entry["generation"], question, entry["instructions"])

    def _find(self, client: Client, wanted: str) -> tuple[str | None, str | None]:
        """The conversation, and the answer in it if that is what was named; or an answer alone."""
        if wanted == LAST:
            return self._last(client)
        if _WHOLE.fullmatch(wanted) is not None:
            return wanted, None
        found = _BEGINNING.fullmatch(wanted)
        if found is not None and (found[1] or "").lower() != "resp_":
            begin = _PREFIX + found[2].lower()
            ids = [id_ for id_, _ in self.api.ids() if id_.startswith(begin)]
            if len(ids) > 1:
                some = ", ".join(ids[:3]) + (" …" if len(ids) > 3 else "")
                raise CommandError(
                    f"{len(ids)} conversations begin with {wanted!r}: {some}: give more of the id"
                )
            if ids:
                return ids[0], None
            if found[1]:
                raise CommandError(f"no conversation of yours begins with {wanted!r}", Exit.REFUSED)
        answer = generation_id(previous_id(client, wanted))
        try:
            about = self.api.get(f"/v1/generations/{answer}")
        except RequestError as error:
            if error.code != "generation_not_found":
                raise
            raise CommandError(
                f"there is no conversation and no answer {wanted!r} of yours", Exit.REFUSED
            ) from None
        return about["conversation"], answer

    def _last(self, client: Client) -> tuple[str | None, str | None]:
        """The conversation of the newest answer, or that answer."""
        user: str | None = None
        for one in self.api.get("/v1/generations", limit=str(_LOOKED_AT))["data"]:
            if one["owner"]:  # an admin's list has those of others
                user = client.status().get("user", "") if user is None else user
                if one["owner"] != user:
                    continue
            over = one["state"] in _OVER and (one["state"] == "done" or one["tokens"])
            if one["conversation"] is None and not over:
                continue
            shown = f": {one_line(one['preview'])}" if one["preview"] else ""
            print_note(prog(), f"goes on with {one['conversation'] or one['id']}{shown}")
            return (one["conversation"], None) if one["conversation"] else (None, one["id"])
        raise CommandError("--continue last: you have no conversation yet", Exit.REFUSED)
