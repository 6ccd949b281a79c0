"""Clients of /v1/responses: they begin answers in the background, and read them in pieces.

Each answer is asked for with an idempotency key, until the server has said its id. Then it is read
by `starting_after`: some events at a time, over as many connections as it takes, and restarts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from llcuda_net.client.events import Result
from llcuda_net.server.http.responses.outline import GAP
from tools.campaign.http_clients import CutError, OverHttp, WrongError, piece_of
from tools.campaign.http_exchange import LostError
from tools.campaign.jobs import Job
from tools.campaign.ledger import Reading

RESPONSES = "/v1/responses"
#: Pause between two attempts, and between two readings, in seconds.
PAUSE = 0.25
#: Most events that are read over one connection.
_MOST = 60
#: Why an answer ended, by the status of its response.
_REASONS = {"completed": "stop", "incomplete": "length", "cancelled": "cancelled"}


@dataclass
class Answer:
    """One response, read over many connections.

    Attributes:
        last: the number of the last event; None: there was none.
        cancel: pieces after which the client cancels it; None: never.
        result: how it ended; None: not yet.
    """

    job: Job
    reading: Reading
    key: str
    cancel: int | None = None
    id: str = ""
    last: int | None = None
    texts: list[str] = field(default_factory=list)
    result: Result | None = None

    @property
    def generation(self) -> str:
        """The id of its generation."""
        return self.id.removeprefix("resp_")


class ResponseClients(OverHttp):
    """All clients that begin responses in the background."""

    async def run_one(self) -> None:
        """Be one client, until it is enough and everything begun is over."""
        while not self._is_enough():
            job = self._jobs.draw(chat=True)
            self._ledger.counts["response jobs"] += 1
            await self._do(job)

    async def _do(self, job: Job) -> None:
        answer = Answer(job, Reading(self._ledger, job), f"response {self._rng.random()}")
        if job.kind == "cancel":
            answer.cancel = job.after
        with trio.move_on_after(self._patience):
            try:
                await self._begin(answer)
                while not await self._read(answer):  # noqa: ASYNC110 -- it waits for a server
                    await trio.sleep(PAUSE * self._rng.random())
            except WrongError as error:
                self._failed(answer.reading, job, error, answer.generation)
                return
            assert answer.result is not None
            answer.reading.end(answer.generation, answer.result, tells_splices=False)
            return
        answer.reading.fail(f"response: not over within {self._patience:g} s")

    async def _begin(self, answer: Answer) -> None:
        """Until the server has said what it is called; `twice`: over two connections at once."""
        if answer.job.kind != "twice":
            answer.id = await self._named(answer)
            return
        ids: list[str] = []

        async def ask() -> None:
            ids.append(await self._named(answer))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        if len(set(ids)) > 1:  # one that has failed has no key any more
            went_on = [id_ for id_ in ids if not await self._may_have_failed(answer, id_)]
            if len(set(went_on)) > 1:
                raise WrongError(f"one key, and more than one response: {ids}")
            ids = went_on or ids
        answer.id = ids[0]

    async def _may_have_failed(self, answer: Answer, id_: str) -> bool:
        """Whether another response to the same key was right, since this one ended with an error
        that is allowed: none is here.
        """
        return False

    async def _named(self, answer: Answer) -> str:
        body, headers = request_of(answer.job, answer.key)
        while True:
            try:
                async with self._exchange("POST", RESPONSES, body, headers, answer.reading) as got:
                    document = self._checked(got.status, await got.read())
                answer.reading.note(f"it is {document['id']}, {document['status']}")
                return str(document["id"])
            except (LostError, CutError) as error:
                answer.reading.note(str(error))
                self._ledger.counts["responses asked for again"] += 1
            await trio.sleep(PAUSE)

    async def _read(self, answer: Answer) -> bool:
        """Read some events over one connection; whether the response has come to its end."""
        path = f"{RESPONSES}/{answer.id}?stream=true"
        if answer.last is not None:
            path += f"&starting_after={answer.last}"
        left = self._rng.randint(1, _MOST)
        try:
            async with self._exchange("GET", path, reading=answer.reading) as got:
                if got.status != 200:
                    self._checked(got.status, await got.read())
                if answer.last is not None:
                    self._ledger.counts["responses resumed by starting_after"] += 1
                while (line := await got.line()) is not None:
                    name, _, value = line.partition(": ")
                    if name != "data":
                        continue
                    self._event(answer, self._checked(200, value.encode()))
                    left -= 1
                    if answer.result is not None:
                        return True
                    if answer.cancel is not None and answer.reading.received > answer.cancel:
                        answer.cancel, answer.reading.cancelled = None, True
                        await self._cancel(answer)
                    if not left:
                        return False
        except (LostError, CutError) as error:
            answer.reading.note(str(error))
            self._ledger.counts["response connections lost"] += 1
            return False
        raise WrongError(f"the stream ended behind event {answer.last}")

    def _event(self, answer: Answer, event: Any) -> None:
        due = 0 if answer.last is None else answer.last + 1
        number = event["sequence_number"]
        if number != due and number - due < GAP:  # by so many another run goes on
            raise WrongError(f"event {number} came where {due} was due")
        kind = event["type"]
        if kind == "response.failed":
            error = event["response"]["error"]
            raise self._failure(error["code"], error["message"])
        answer.last = number
        if kind == "response.output_text.delta":
            found = event["logprobs"]
            choice = {
                "delta": {"content": event["delta"]},
                "logprobs": {"content": found} if found else None,
            }
            answer.reading.piece(piece_of(len(answer.texts), choice, answer.job.pieces))
            answer.texts.append(event["delta"])
        elif kind.removeprefix("response.") in _REASONS:
            answer.result = self._result(answer, event["response"])

    def _failure(self, code: str, message: str) -> Exception:
        """What to raise where a response has failed."""
        return WrongError(f"response.failed, {code}: {message}", code)

    def _result(self, answer: Answer, response: Any) -> Result:
        """What the last event says, which has all of the response."""
        parts = [part for item in response["output"] for part in item.get("content", ())]
        text = "".join(part["text"] for part in parts)
        if text != "".join(answer.texts):
            raise WrongError(f"{answer.id} is {text!r}, and its deltas were {answer.texts!r}")
        used = response["usage"]
        usage = {
            "completion_tokens": used["output_tokens"],
            "prompt_tokens": used["input_tokens"],
        }
        stop = response["llcuda"].get("stop")
        return Result(text, _REASONS[response["status"]], stop, usage)

    async def _cancel(self, answer: Answer) -> None:
        """Until the server has said that it is over: it may be killed meanwhile."""
        while True:
            try:
                async with self._exchange("POST", f"{RESPONSES}/{answer.id}/cancel") as got:
                    status = self._checked(got.status, await got.read())["status"]
                if status not in _REASONS and not self.asks_twice:
                    raise WrongError(f"it is {status} after it was cancelled")
                if status in _REASONS:
                    return
                self._ledger.counts["cancelled again"] += 1
            except (LostError, CutError):
                pass
            await trio.sleep(PAUSE)


def request_of(job: Job, key: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The body and the headers that ask for a job in the background."""
    ask: Mapping[str, Any] = job.ask
    messages = ask.get("messages") or [{"role": "user", "content": ask["prompt"]}]
    body: dict[str, Any] = {"model": "any", "input": messages, "background": True}
    body |= {name: ask[name] for name in ("temperature", "stop", "cache_prompt") if name in ask}
    body["max_output_tokens"] = ask["n_predict"]
    if "n_probs" in ask:
        body |= {"include": ["message.output_text.logprobs"], "top_logprobs": ask["n_probs"]}
    headers = {"Idempotency-Key": key}
    if ask.get("level") is not None:
        headers["x-llcuda-level"] = ask["level"]
    return body, headers
