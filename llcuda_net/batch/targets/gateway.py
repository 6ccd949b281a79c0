"""An llcuda-server as a target."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets import facts
from llcuda_net.batch.targets.interface import About, Answer, Clock, embedded
from llcuda_net.batch.targets.token_check import Sampled, tokens_in
from llcuda_net.client import Client
from llcuda_net.client.stream import Piece
from llcuda_net.errors import ConnectError, RequestError
from llcuda_net.upstream.llama.transport.origin import Origin, unreachable

#: Seconds for a server to hash its model: at most, and at least with as many more as bytes per
#: second take it.
_MOST_PATIENCE, _PATIENCE, _HASHED = 20.0, 1.0, 200e6


class GatewayTarget(Sampled):
    """An llcuda-server, over one or several connections that share the requests in turn.

    Args:
        http: its HTTP, where it can be asked for that: it tokenizes, which its protocol does not.
    """

    def __init__(self, name: str, clients: list[Client], http: Origin | None = None) -> None:
        super().__init__()
        self._http = http
        self.tokenizer = "" if http is None else "its /tokenize"
        self.name = name
        self._clients = clients
        self._next = 0
        self._model: str | None = None

    def __repr__(self) -> str:
        return f"<GatewayTarget {self.name}, {len(self._clients)} connections, {self._next} asked>"

    async def about(self) -> About:
        """What its status says; a server that has just begun is given time to hash its model.

        Raises:
            ConnectError, RequestError: it does not say.
        """
        found = await self._clients[0].status()
        if (size := facts.unhashed(found)) > 0:
            with trio.move_on_after(min(_MOST_PATIENCE, _PATIENCE + size / _HASHED)):
                while facts.unhashed(found) > 0:
                    await trio.sleep(0.05)
                    found = await self._clients[0].status()
        told = facts.of_gateway(found)
        upstreams = found.get("upstreams") or [{}]
        server = found.get("server")
        version = server.get("version") if isinstance(server, dict) else server
        return About(
            str(upstreams[0].get("model") or "unknown"),
            sum(int(each.get("slots") or 0) for each in upstreams),
            f"llcuda-server {version}",
            "llcuda",
            told["context"],
            told,
        )

    async def ask(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        record: Record,
        now: Clock,
        **more: Any,
    ) -> Answer:
        """See Target."""
        client = self._clients[self._next % len(self._clients)]
        self._next += 1
        if "texts" in more:
            record.sent = now()
            vectors = await client.embed(more["texts"])
            return embedded(record, vectors, len(more["texts"]))
        # Token ids are sent as they are by the name of prompt, and text by the name of raw.
        what: dict[str, Any] = {"raw" if isinstance(prompt, str) else "prompt": prompt}
        if "messages" in more:
            what = {}
        record.sent = now()
        async with client.generate(**what, **more, **params) as stream:
            try:
                while events := await stream.take():
                    at = now()
                    record.chunks.extend(at for event in events if isinstance(event, Piece))
            except trio.Cancelled:
                if "key" in more:  # the same key will be asked again: the generation goes on
                    soon = trio.CancelScope(shield=True, deadline=trio.current_time() + 1)
                    with soon, suppress(ConnectError, RequestError):
                        await stream.detach()
                raise
        result = stream.result
        record.phases = dict(result.timings)
        record.tokens = result.usage.get("completion_tokens", 0)
        record.prompt_tokens = result.usage.get("prompt_tokens", 0)
        record.cached_tokens = result.usage.get("cached_tokens", 0)
        self._model = result.model
        answer = Answer(result.text, result.reason, result.model, result.id)
        self.keep(record, answer)
        return answer

    async def count(self, text: str) -> int:
        """See Sampled."""
        if self._http is None:
            return await super().count(text)
        body = {"content": text, "model": self._model}
        with unreachable("its HTTP cannot be reached"):
            return len((await self._http.ask("POST", "/tokenize", tokens_in, body)).tokens)
