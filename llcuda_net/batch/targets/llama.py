"""A llama-server as a target, by its own /completion."""

from __future__ import annotations

from typing import Any

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets import facts
from llcuda_net.batch.targets.asking import asking
from llcuda_net.batch.targets.interface import About, Answer, Clock, embedded, overloaded_when_busy
from llcuda_net.batch.targets.token_check import Sampled
from llcuda_net.upstream.constraints.checks import Checks, as_sent
from llcuda_net.upstream.interface import CompletionEvent
from llcuda_net.upstream.llama.client import LlamaServer
from llcuda_net.upstream.prompts.chat import prompt_of

#: llama-server's reasons to stop, as the gateway names them.
_REASONS = {"eos": "stop", "word": "stop", "limit": "length"}


class LlamaTarget(Sampled):
    """A llama-server itself: one connection per request, as the gateway asks it, too."""

    tokenizer = "its /tokenize"

    def __init__(self, name: str, server: LlamaServer) -> None:
        super().__init__()
        self.name = name
        self._server = server
        self._checks = Checks()

    def __repr__(self) -> str:
        return f"<LlamaTarget {self.name}>"

    async def about(self) -> About:
        """What its /props say.

        Raises:
            RequestError: it does not say.
        """
        found = await self._server.ask()
        told = await facts.of_llama(asking(self._server.origin))
        version = f"llama-server {found.build}".strip()
        return About(found.model, found.slots, version, "llama", found.context, told)

    async def ask(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        record: Record,
        now: Clock,
        **more: Any,
    ) -> Answer:
        """See Target; `messages` become a prompt by the model's template, `key` means nothing.

        Args:
            more: also `on_text`, called with each piece of the answer as it comes.

        Raises:
            RequestError: it fails, or the answer does not keep the constraint in `params`.
        """
        record.sent = now()
        if "texts" in more:
            with overloaded_when_busy():
                vectors = await self._server.embed(more["texts"])
            return embedded(record, vectors, len(more["texts"]))
        if "messages" in more:
            with overloaded_when_busy():
                prompt = await prompt_of(more["messages"], self._server)
        await self._checks.check(params)
        sent = params
        if "json_schema" in params:
            sent = {**params, "json_schema": as_sent(params["json_schema"])}
        texts: list[str] = []
        last: list[CompletionEvent] = []

        def take(events: list[CompletionEvent]) -> None:
            at = now()
            for event in events:
                if event.content:
                    record.chunks.append(at)
                    texts.append(event.content)
                    if "on_text" in more:
                        more["on_text"](event.content)
                if event.stop:
                    last.append(event)

        with overloaded_when_busy():
            await self._server.complete(prompt, sent, take, lambda: None)
        final = last[-1]
        record.tokens = final.tokens_predicted
        record.prompt_tokens = final.tokens_evaluated
        if final.timings is not None:
            record.cached_tokens = final.timings.cache_n
            record.phases = {"prompt": final.timings.prompt_ms}
        reason = _REASONS.get(final.stop_type, "stop")
        text = "".join(texts)
        cut = final.stop_type in ("limit", "word")
        await self._checks.verify(params, text, cut=cut)
        answer = Answer(text, reason, final.model or None)
        self.keep(record, answer)
        return answer

    async def count(self, text: str) -> int:
        """See Sampled."""
        return len(await self._server.tokenize(text, special=False))
