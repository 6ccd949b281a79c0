"""The conversations of a server, over the HTTP of its one port.

The protocol of our own clients has no conversations, and needs none: they are made and listed here,
and each answer is then read over the protocol, which resumes it after any loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from llcuda_net.errors import ConnectError, request_error

if TYPE_CHECKING:
    import httpx

    from llcuda_net.errors import RequestError

#: Seconds between two tries: the first, by how much each is longer, and the longest.
_FIRST, _GROWS, _LONGEST = 0.3, 1.7, 5.0
#: Conversations of a page of the list, and pages that are looked at for the beginning of an id.
_PAGE, _PAGES = 100, 10
#: Statuses of a server, or of a proxy before it, that is just away.
_AWAY = (502, 503, 504)


class ConversationApi:
    """Asks until the server has answered, or for so long.

    Args:
        connect: makes a client of the HTTP of the server that is there now.
        patience: seconds for which a server that is away is waited for.
        on_away: called once per request when it is sent again, with why.
    """

    def __init__(
        self,
        connect: Callable[[], httpx.Client],
        patience: float,
        on_away: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._connect = connect
        self._patience = patience
        self._on_away = on_away

    def __repr__(self) -> str:
        return f"<ConversationApi {self._patience:g} s>"

    def check(self) -> None:
        """Make sure that there are conversations.

        Raises:
            ConnectError: nothing answers HTTP there.
            RequestError: the server has none: it keeps nothing, or it is too old.
        """
        once = ConversationApi(self._connect, 0)
        once.get("/v1/conversations", limit="1")

    def get(self, where: str, /, **query: str) -> dict[str, Any]:
        """What is at a path.

        Raises:
            ConnectError: the server was away for too long.
            RequestError: it refused.
        """
        return self._asked("GET", where, params=query)

    def download(self, where: str, /, **query: str) -> bytes:
        """A file. Raises as `get`."""
        data: bytes = self._answer("GET", where, params=query).content
        return data

    def respond(
        self, body: dict[str, Any], headers: dict[str, str], key: str | None = None
    ) -> dict[str, Any]:
        """Begin a response, once, however often it has to be sent. Raises as `get`."""
        named = {**headers, "Idempotency-Key": key or uuid4().hex}
        return self._asked("POST", "/v1/responses", json=body, headers=named)

    def begin(self) -> str:
        """A new conversation: its id. Raises as `get`.

        It is one, however often it has to be sent: what an earlier try has made is found again.
        """
        mark = {"chat_turn": uuid4().hex}

        def made() -> str | None:
            found = self.get("/v1/conversations", limit="20")["data"]
            return next((each["id"] for each in found if each["metadata"] == mark), None)

        body = {"metadata": mark}
        found = self._asked("POST", "/v1/conversations", json=body, before_next=made)
        return str(found["id"])

    def delete(self, path: str) -> None:
        """Raises as `get`."""
        self._asked("DELETE", path)

    def ids(self) -> list[tuple[str, str]]:
        """The ids of the newest conversations, each with its title or first words."""
        found: list[tuple[str, str]] = []
        query = {"limit": str(_PAGE)}
        for _ in range(_PAGES):
            page = self.get("/v1/conversations", **query)
            found += [(one["id"], one["title"] or one["preview"] or "") for one in page["data"]]
            if not page["has_more"]:
                break
            query["after"] = page["last_id"]
        return found

    def _asked(
        self,
        method: str,
        path: str,
        *,
        before_next: Callable[[], str | None] | None = None,
        **how: Any,
    ) -> dict[str, Any]:
        answer = self._answer(method, path, before_next=before_next, **how)
        if isinstance(answer, str):
            return {"id": answer}
        try:
            found = answer.json()
        except ValueError:
            raise ConnectError("what answers there is no llcuda-server") from None
        if not isinstance(found, dict):
            raise ConnectError("what answers there is no llcuda-server")
        return found

    def _answer(
        self,
        method: str,
        path: str,
        *,
        before_next: Callable[[], str | None] | None = None,
        **how: Any,
    ) -> Any:
        import httpx

        end = time.monotonic() + self._patience
        wait, told = _FIRST, False
        while True:
            away: ConnectError | RequestError
            try:
                with self._connect() as client:
                    answer = client.request(method, path, **how)
                if answer.status_code < 400:
                    return answer
                away = _refusal(answer)
                if answer.status_code not in _AWAY:
                    raise away
            except httpx.TransportError as error:
                away = ConnectError(f"cannot ask the server: {_why(error)}")
            if time.monotonic() + wait > end:
                raise away
            if not told:
                told = True
                self._on_away(str(away))
            time.sleep(wait)
            wait = min(wait * _GROWS, _LONGEST)
            if before_next is not None:
                found = before_next()
                if found is not None:
                    return found


def _refusal(answer: httpx.Response) -> RequestError:
    try:
        error = answer.json()["error"]
        message, code = str(error["message"]), str(error.get("code") or error.get("type") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code = f"the server answered {answer.status_code}", ""
    after = answer.headers.get("retry-after", "")
    seconds = float(after) if after.isdigit() else None
    retry = answer.status_code in (*_AWAY, 429)
    return request_error(code or "internal", message, retry=retry, retry_after=seconds)


def _why(error: Exception) -> str:
    said = str(error).lower()
    if said.startswith("[errno"):
        said = said.partition("] ")[2]
    return said or type(error).__name__
