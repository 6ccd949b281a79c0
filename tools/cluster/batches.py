"""Clients of a cluster that have batches: each step at another server, whatever becomes of it.

A batch is run by one server, and by the next one when that is gone: each of its lines must be
answered once, with the answer that it must have, and be in the output once.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from typing import Any

import trio

from llcuda_net.batch.api import OVER
from tools.campaign.http_clients import CutError, WrongError
from tools.campaign.http_exchange import LostError
from tools.cluster.allowed import UPSTREAMS
from tools.cluster.over_http import OfCluster
from tools.crash.batches import Work

#: Lines of a batch.
LINES = 24
#: Pause between two attempts, and between two looks, in seconds.
_PAUSE = 0.5
_CHAT = "/v1/chat/completions"


class ClusterBatches(OfCluster):
    """All clients with batches.

    Attributes:
        keys: of all lines that were asked: each must be in the store, and done once, but for those
            that failed with an error that is allowed.
        failed: those.
    """

    def begin(self) -> None:
        """Before the first client."""
        self.keys: set[str] = set()
        self.failed: set[str] = set()

    async def run_one(self) -> None:
        """Be one client, until it is enough and its last batch is over."""
        count = 0
        while not self._is_enough():
            count += 1
            work = Work.draw(count, LINES, self._rng)
            with trio.move_on_after(self._patience) as patience:
                try:
                    await self._do(work)
                except WrongError as error:
                    self._ledger.violation(f"batch: {error}")
            if patience.cancelled_caught:
                self._ledger.violation(f"batch: not over within {self._patience:g} s")

    async def _do(self, work: Work) -> None:
        file = str((await self._insist("POST", "/v1/files", *_form(work.data)))["id"])
        body = {"input_file_id": file, "endpoint": work.path, "completion_window": "24h"}
        key = {"Idempotency-Key": f"batch {uuid.UUID(int=self._rng.getrandbits(128))}"}
        batch = await self._insist("POST", "/v1/batches", body, key)
        id_ = batch["id"]
        self.keys |= {f"{id_}:{number}" for number in range(LINES)}
        while batch["status"] not in OVER:
            await trio.sleep(_PAUSE)
            batch = await self._insist("GET", f"/v1/batches/{id_}")
        lines = []
        for name in ("output_file_id", "error_file_id"):
            if batch[name] is not None:
                lines += await self._lines(str(batch[name]))
        found = Counter(one["custom_id"] for one in lines)
        if found != Counter(f"{number}" for number in range(LINES)):
            raise WrongError(f"{id_}, {batch['status']}: its output has the lines {dict(found)}")
        for line in lines:
            self._look(id_, line, work)
        self._ledger.counts["batches"] += 1
        self._ledger.counts["batch lines"] += LINES

    async def _lines(self, file: str) -> list[Any]:
        text = await self._insist("GET", f"/v1/files/{file}/content", lines=True)
        return [json.loads(line) for line in text.splitlines()]

    def _look(self, batch: str, line: Any, work: Work) -> None:
        """Compare one line of an output with what it must say."""
        number, answer = int(line["custom_id"]), line["response"] or {}
        body = answer.get("body") or {}
        error = body.get("error") or line["error"]
        if error is not None:
            if error["code"] not in UPSTREAMS:
                raise WrongError(f"{batch}, line {number}: {error['code']}: {error['message']}")
            self._ledger.counts["errors"] += 1
            self.failed.add(f"{batch}:{number}")
            return
        (choice,) = body["choices"]
        said = choice["message"]["content"] if work.path == _CHAT else choice["text"]
        if (said or "") != work.texts[number]:
            raise WrongError(
                f"{batch}, line {number} says {said!r}, and should say {work.texts[number]!r}"
            )

    async def _insist(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        *,
        lines: bool = False,
    ) -> Any:
        """Ask one server or another, until one answers: with JSON, or with lines of it."""
        while True:
            try:
                async with self._exchange(method, path, body, headers) as got:
                    data = await got.read()
                    if not lines or got.status != 200:
                        return self._checked(got.status, data)
                    return data.decode()
            except (LostError, CutError):
                self._ledger.counts["batches asked again"] += 1
            await trio.sleep(_PAUSE * self._rng.random())


def _form(data: bytes) -> tuple[bytes, dict[str, str]]:
    """An upload as a form, and its header."""
    edge = "llcuda-campaign"
    head = (
        f'--{edge}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="lines"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    body = b"".join((head.encode(), data, f"\r\n--{edge}--\r\n".encode()))
    return body, {"Content-Type": f"multipart/form-data; boundary={edge}"}
