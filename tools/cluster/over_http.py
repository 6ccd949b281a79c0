"""Clients of a cluster over HTTP: what may be asked again is asked again, of any server."""

from __future__ import annotations

import json
from typing import Any

import trio

from tools.campaign.http_clients import CutError, HttpClients, OverHttp, WrongError, checked
from tools.campaign.http_exchange import LostError
from tools.campaign.jobs import Job
from tools.campaign.ledger import Reading
from tools.campaign.response_clients import PAUSE, RESPONSES, Answer, ResponseClients
from tools.cluster.allowed import LATER, MEANS, is_allowed

#: What a response is that is not over.
RUNNING = frozenset({"queued", "in_progress"})


class OfCluster(OverHttp):
    """What all of them have in common.

    Attributes:
        ended: ids of generations that ended with an error that is allowed.
    """

    asks_twice = True  # its server may have lost it just then

    def _checked(self, status: int, body: bytes) -> Any:
        try:
            return checked(status, body)
        except WrongError as error:
            self._ledger.counts[f"error {error.code} over HTTP"] += 1
            if error.code in LATER:
                raise CutError(str(error)) from error
            raise

    ended: set[str]

    def _failed(self, reading: Reading, job: Job, error: WrongError, id_: str = "") -> None:
        if not is_allowed(error.code, job):
            super()._failed(reading, job, error, id_)
            return
        self.ended.add(id_)
        self._ledger.counts["errors"] += 1
        reading.excuse()


class ClusterHttp(OfCluster, HttpClients):
    """All clients with chats."""


class ClusterResponses(OfCluster, ResponseClients):
    """All clients with responses in the background."""

    async def _may_have_failed(self, answer: Answer, id_: str) -> bool:
        """See ResponseClients; waits for its end."""
        while True:
            try:
                path = f"{RESPONSES}/{id_}"
                async with self._exchange("GET", path, reading=answer.reading) as got:
                    body = await got.read()
                # With an error in it, a response that has failed looks like a refusal.
                response = (
                    json.loads(body) if got.status == 200 else self._checked(got.status, body)
                )
                if response["status"] == "failed":
                    error = response["error"]
                    raise self._failure(error["code"], error["message"])
                if response["status"] not in RUNNING:
                    return False
            except WrongError as error:
                if not is_allowed(error.code, answer.job):
                    raise
                self.ended.add(id_.removeprefix("resp_"))
                answer.reading.note(f"{id_} has ended: {error}")
                return True
            except (LostError, CutError) as error:
                answer.reading.note(str(error))
            await trio.sleep(PAUSE)

    def _failure(self, code: str, message: str) -> Exception:
        """This API has few codes: what it means, the message says."""
        code = next((ours for begins, ours in MEANS.items() if begins in message), code)
        self._ledger.counts[f"error {code} over HTTP"] += 1
        if code in LATER:
            return CutError(message)
        return WrongError(f"response.failed, {code}: {message}", code)
