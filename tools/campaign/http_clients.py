"""Clients over HTTP, as plain as they come: a reader of server-sent events.

They lose their connections with the server, or leave on purpose, and resume by the id of the last
event: at the generation's own path, or with the same POST and its idempotency key.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any

import trio

from llcuda_net.client.events import Piece, Result
from llcuda_protocol import TokenLogprob, TopToken
from tools.campaign.http_exchange import HttpExchange, LostError, exchange
from tools.campaign.jobs import Job, Jobs
from tools.campaign.ledger import Ledger, Reading

_CHAT = "/v1/chat/completions"
#: Pause between two attempts, in seconds.
_PAUSE = 0.25
#: Of a hundred answers, how many are asked for as a whole.
_WHOLE = 15


class WrongError(Exception):
    """What came is not what must come; `code` is that of the server's error, if it is one."""

    def __init__(self, what: str, code: str = "") -> None:
        super().__init__(what)
        self.code = code


class CutError(Exception):
    """The connection ended, or the server said that it stops: the rest may be asked for again."""


class CancelledError(Exception):
    """The generation was cancelled."""


@dataclass
class _Answer:
    """One answer, over as many connections as it takes.

    Attributes:
        leave: events after which the client leaves once, and comes back.
        cancel: events after which it cancels the generation; None: never.
        last: the id of the last event.
    """

    job: Job
    reading: Reading
    key: str
    leave: int | None = None
    cancel: int | None = None
    id: str = ""
    last: str = ""
    text: str = ""
    reason: str = ""
    stop: str | None = None
    usage: dict[str, int] | None = None


class OverHttp:
    """What all clients over HTTP of a campaign have in common.

    Attributes:
        asks_twice: what still runs after it was cancelled is cancelled again.
        token: the user's.

    Args:
        address: HOST:PORT of the server, or of the proxy before it; of several, with commas
            between, each exchange draws one.
        patience: seconds for one job, restarts included.
        is_enough: whether to begin nothing more.
    """

    asks_twice = False
    token: str | None = None

    def __init__(
        self,
        address: str,
        jobs: Jobs,
        ledger: Ledger,
        rng: random.Random,
        patience: float,
        is_enough: Callable[[], bool],
    ) -> None:
        self._is_enough = is_enough
        self._address = address
        self._jobs = jobs
        self._ledger = ledger
        self._rng = rng
        self._patience = patience

    def _exchange(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        reading: Reading | None = None,
    ) -> AbstractAsyncContextManager[HttpExchange]:
        address = self._address
        if "," in address:
            address = self._rng.choice(address.split(","))
        if reading is not None:
            reading.note(f"{method} {path}", address)
        if self.token is not None:
            headers = {**(headers or {}), "Authorization": f"Bearer {self.token}"}
        return exchange(address, method, path, body, headers)

    def _checked(self, status: int, body: bytes) -> Any:
        """The JSON of an answer or event; see `checked`."""
        return checked(status, body)

    def _failed(self, reading: Reading, job: Job, error: WrongError, id_: str = "") -> None:
        """A reading of a generation, if it is known, ended with an error: none is allowed here."""
        reading.fail(f"{id_}: {error}" if id_ else str(error))


class HttpClients(OverHttp):
    """All clients with chats."""

    async def run_one(self) -> None:
        """Be one client, until it is enough and everything begun is over."""
        while not self._is_enough():
            job = self._jobs.draw(chat=True)
            self._ledger.counts["http jobs"] += 1
            if job.kind == "twice":
                await self._twice(job)
            else:
                await self._do(job, self._new_key())

    def _new_key(self) -> str:
        return f"http {self._rng.random()}"

    async def _twice(self, job: Job) -> None:
        """The same key over two connections at once."""
        key, ids = self._new_key(), set()

        async def ask() -> None:
            if (id_ := await self._do(job, key)) is not None:
                ids.add(id_)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        if len(ids) > 1:
            self._ledger.violation(f"one key over HTTP, and more than one generation: {ids}")

    async def _do(self, job: Job, key: str) -> str | None:
        """Have one answer; the id of its generation, if all went well."""
        reading = Reading(self._ledger, job)
        answer = _Answer(job, reading, key)
        if job.kind == "detach":
            answer.leave = job.after
        if job.kind == "cancel":
            answer.cancel = job.after
        whole = job.kind == "read" and self._rng.random() * 100 < _WHOLE
        with trio.move_on_after(self._patience):
            try:
                once = self._whole if whole else self._read
                while not await once(answer):  # noqa: ASYNC110 -- it waits for a server
                    await trio.sleep(_PAUSE)
            except WrongError as error:
                self._failed(reading, job, error, answer.id)
                return None
            usage = answer.usage or {}
            result = Result(answer.text, answer.reason, answer.stop, usage)
            reading.end(answer.id, result, tells_splices=False)
            return answer.id
        reading.fail(f"not over within {self._patience:g} s")
        return None

    # -- one connection -----------------------------------------------------------------------

    async def _whole(self, answer: _Answer) -> bool:
        """Ask for the whole answer; whether it came."""
        body, headers = request_of(answer.job, answer.key, stream=False)
        try:
            async with self._exchange("POST", _CHAT, body, headers, answer.reading) as got:
                document = self._checked(got.status, await got.read())
        except (LostError, CutError) as error:
            answer.reading.note(str(error))
            self._ledger.counts["http asked again"] += 1
            return False
        (choice,) = document["choices"]
        self._take_end(answer, document, choice["finish_reason"])
        answer.usage, answer.text = document["usage"], choice["message"]["content"]
        answer.id = got.headers["x-llcuda-generation"]
        if not answer.job.varied and answer.text != answer.job.text:
            raise WrongError(f"the whole answer is {answer.text!r}, not {answer.job.text!r}")
        job = answer.job
        answer.reading.received = job.tokens if job.varied else len(job.pieces)
        return True

    async def _read(self, answer: _Answer) -> bool:
        """Read on over one connection; whether the answer has come to its end."""
        headers = {"Last-Event-ID": answer.last} if answer.last else {}
        body = None
        if answer.id and self._rng.random() < 0.5:
            method, path = "GET", f"/v1/generations/{answer.id}/events"
        else:
            method, path = "POST", _CHAT
            body, more = request_of(answer.job, answer.key, stream=True)
            headers |= more
        try:
            async with self._exchange(method, path, body, headers, answer.reading) as got:
                if got.status != 200:
                    self._checked(got.status, await got.read())
                id_ = got.headers["x-llcuda-generation"]
                if answer.id not in ("", id_):
                    raise WrongError(f"generation {id_} answers what {answer.id} has begun")
                answer.id = id_
                answer.reading.note(f"it is {id_}, read behind {answer.last or 'nothing'}")
                if answer.last:
                    self._ledger.counts[f"http resumed by {method}"] += 1
                return await self._events(got, answer)
        except CancelledError:
            answer.reason = "cancelled"
            return True
        except (LostError, CutError) as error:
            answer.reading.note(str(error))
            self._ledger.counts["http connections lost"] += 1
            return False

    async def _events(self, got: HttpExchange, answer: _Answer) -> bool:
        id_ = ""
        while (line := await got.line()) is not None:
            name, _, value = line.partition(": ")
            if name == "id":
                id_ = value
            elif name == "data" and value == "[DONE]":
                return True
            elif name == "data":
                self._event(answer, id_, self._checked(200, value.encode()))
                if answer.leave is not None and answer.reading.received > answer.leave:
                    answer.leave = None
                    return False
                if answer.cancel is not None and answer.reading.received > answer.cancel:
                    answer.cancel = None
                    answer.reading.cancelled = True
                    await self._cancel(answer.id)
        raise CutError("the stream ended before its end")

    def _event(self, answer: _Answer, id_: str, document: Any) -> None:
        generation, _, rest = id_.partition(":")
        if generation != answer.id or id_ == answer.last:
            raise WrongError(f"an event of {answer.id} has the id {id_!r} after {answer.last!r}")
        answer.last = id_
        if document["choices"]:
            (choice,) = document["choices"]
            if choice["finish_reason"] is None:
                sequence = int(rest.partition(":")[0]) - 1
                answer.reading.piece(piece_of(sequence, choice, answer.job.pieces))
                answer.text += choice["delta"]["content"]
            else:
                self._take_end(answer, document, choice["finish_reason"])
        else:
            answer.usage = document["usage"]

    def _take_end(self, answer: _Answer, document: Any, reason: str) -> None:
        answer.reason, answer.stop = reason, document["llcuda"].get("stop")

    async def _cancel(self, id_: str) -> None:
        """Until the server has said that it is over: it may be killed meanwhile."""
        while True:
            with suppress(LostError, CutError):
                path = f"/v1/generations/{id_}/cancel"
                async with self._exchange("POST", path) as got:
                    document = self._checked(got.status, await got.read())
                if document["state"] in ("cancelled", "done"):
                    return
                if not self.asks_twice:
                    raise WrongError(f"it is {document['state']} after it was cancelled")
                self._ledger.counts["cancelled again"] += 1
            await trio.sleep(_PAUSE)


def checked(status: int, body: bytes) -> Any:
    """The JSON of an answer or event, unless it is an error."""
    document = json.loads(body)
    error = document.get("error") if "state" not in document else None
    if error is not None:
        if error["code"] in ("shutting_down", "lease_lost"):
            raise CutError(error["message"])
        if error["code"] == "cancelled":
            raise CancelledError
        what = f"{status} {error['code']}: {error['message']}"
        raise WrongError(what, str(error["code"]))
    return document


def request_of(job: Job, key: str, *, stream: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """The body and the headers that ask for a job."""
    ask: Mapping[str, Any] = job.ask
    messages = ask.get("messages") or [{"role": "user", "content": ask["prompt"]}]
    body = {"model": "any", "messages": messages, "stream": stream}
    body |= {name: ask[name] for name in ("temperature", "stop", "cache_prompt") if name in ask}
    body["max_tokens"] = ask["n_predict"]
    if "n_probs" in ask:
        body |= {"logprobs": True, "top_logprobs": ask["n_probs"]}
    if stream:
        body["stream_options"] = {"include_usage": True}
    headers = {"Idempotency-Key": key}
    if ask.get("level") is not None:
        headers["x-llcuda-level"] = ask["level"]
    if "on_disconnect" in ask:
        headers["x-llcuda-on-disconnect"] = str(ask["on_disconnect"])
    return body, headers


def piece_of(sequence: int, choice: Any, wanted: tuple[Piece, ...]) -> Piece:
    """A piece as our own protocol has it; this API gives no ids, so they are as they must be."""
    should = wanted[sequence] if sequence < len(wanted) else Piece(sequence, "")
    logprobs = None
    if choice["logprobs"] is not None:
        found = choice["logprobs"]["content"]
        known = should.logprobs or []
        ids = [(one.id, [top.id for top in one.top]) for one in known]
        ids += [(-1, [])] * (len(found) - len(known))
        logprobs = [
            TokenLogprob(
                id_,
                bytes(one["bytes"]),
                one["logprob"],
                tuple(
                    TopToken(tops[n] if n < len(tops) else -1, bytes(c["bytes"]), c["logprob"])
                    for n, c in enumerate(one["top_logprobs"])
                ),
            )
            for one, (id_, tops) in zip(found, ids, strict=False)
        ]
    return Piece(sequence, choice["delta"]["content"], should.id, logprobs or None)
