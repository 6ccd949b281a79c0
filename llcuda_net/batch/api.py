"""A batch at an llcuda-server, over /v1/files and /v1/batches: the server asks, and keeps all.

A server that is not there for a while is asked again: a batch goes on over its restarts.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import httpx

from llcuda_net.errors import ConnectError, LlcudaError
from llcuda_net.util.numbers import plain

_T = TypeVar("_T")
#: States in which nothing more happens.
OVER = ("completed", "failed", "expired", "cancelled")
#: Seconds for a connection, and without a byte of an answer.
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
#: Seconds between two looks at a batch, and between two attempts to reach the server.
_LOOK, _AGAIN = 0.5, 1.0
#: Days after which what was uploaded is deleted by itself.
_DAYS = 30
_BLOCK = 1 << 20


class ApiError(LlcudaError):
    """The server refused a request.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BatchApi:
    """The batches of one server.

    Args:
        url: of the server, without /v1; of several that share a database, with commas between:
            where one is not there, the next is asked.
        token: sent as a bearer token.
        patience: seconds for which a server that is lost is tried again.
        note: told of a server that is lost, and of one that is back.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        patience: float = 60.0,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._urls = [one.strip().rstrip("/").removesuffix("/v1") for one in url.split(",")]
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._client = httpx.Client(headers=headers, timeout=_TIMEOUT)
        self._turn_to(self._urls[0])
        self._patience = patience
        self._note = note

    def __repr__(self) -> str:
        return f"<BatchApi {self.url}>"

    @property
    def url(self) -> str:
        """Of the server, or of all of them, as they are given."""
        return ",".join(self._urls)

    def _turn_to(self, url: str) -> None:
        self._now = url
        self._client.base_url = f"{url}/v1"

    def close(self) -> None:
        """Close the connections that are kept."""
        self._client.close()

    def upload(self, file: BinaryIO, name: str) -> str:
        """Upload an input; its id.

        Raises:
            ConnectError, ApiError: it was not.
        """
        fields = {
            "purpose": "batch",
            "expires_after[anchor]": "created_at",
            "expires_after[seconds]": str(_DAYS * 86_400),
        }

        def send() -> httpx.Response:
            file.seek(0)
            return self._client.post("/files", data=fields, files={"file": (name, file)})

        return str(self._json(send)["id"])

    def create(self, file: str, endpoint: str, window: str, name: str) -> dict[str, Any]:
        """Make a batch of an upload; sent twice, it is one.

        Raises:
            ConnectError, ApiError: as `upload`.
        """
        body = {
            "input_file_id": file,
            "endpoint": endpoint,
            "completion_window": window,
            "metadata": {"name": name[:512]},
        }
        key = {"Idempotency-Key": uuid.uuid4().hex}
        return self._json(lambda: self._client.post("/batches", json=body, headers=key))

    def get(self, id_: str) -> dict[str, Any]:
        """A batch as it is now.

        Raises:
            ConnectError, ApiError: as `upload`.
        """
        return self._json(lambda: self._client.get(f"/batches/{id_}"))

    def cancel(self, id_: str) -> dict[str, Any]:
        """Ask nothing more of a batch; one that is over stays as it is.

        Raises:
            ConnectError, ApiError: as `upload`.
        """
        try:
            return self._json(lambda: self._client.post(f"/batches/{id_}/cancel"))
        except ApiError as error:
            if error.status != 409:
                raise
            return self.get(id_)

    def wait(self, id_: str, progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """A batch that is over.

        Args:
            progress: called with it at each look.

        Raises:
            ConnectError, ApiError: as `upload`.
        """
        while True:
            batch = self.get(id_)
            progress(batch)
            if batch["status"] in OVER:
                return batch
            time.sleep(_LOOK)

    def download(self, id_: str, path: Path) -> int:
        """Write a file; it is whole, or as it was. How many lines it has.

        Raises:
            ConnectError, ApiError: as `upload`.
            OSError: it cannot be written.
        """
        part = path.with_name(f"{path.name}.part")

        def fetch() -> int:
            lines = 0
            with (
                self._client.stream("GET", f"/files/{id_}/content") as answer,
                part.open("wb") as file,
            ):
                if answer.status_code != 200:
                    answer.read()
                    raise _refused(answer)
                for block in answer.iter_bytes(_BLOCK):
                    lines += block.count(b"\n")
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            return lines

        try:
            lines = self._until_there(fetch)
            part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        return lines

    def _json(self, send: Callable[[], httpx.Response]) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            answer = send()
            if answer.status_code >= 400:
                raise _refused(answer)
            found: dict[str, Any] = answer.json()
            return found

        return self._until_there(ask)

    def _until_there(self, work: Callable[[], _T]) -> _T:
        """Do it; again and again while the server is not there, or has no time."""
        until: float | None = None
        while True:
            try:
                found = work()
            except httpx.TransportError as error:
                why = f"{self._now} cannot be reached ({str(error) or type(error).__name__})"
            except ApiError as error:
                if error.status != 503:
                    raise
                why = str(error)
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                raise ConnectError(
                    f"{self._now} does not answer as llcuda-server: {error}"
                ) from None
            else:
                if until is not None:
                    self._note("the server is there again")
                return found
            if until is None:
                until = time.monotonic() + self._patience
                if self._patience:
                    self._note(f"{why}; trying again for {plain(self._patience)} s")
            if time.monotonic() >= until:
                raise ConnectError(why)
            behind = self._urls.index(self._now) + 1
            if behind < len(self._urls):
                self._turn_to(self._urls[behind])
                continue
            self._turn_to(self._urls[0])
            time.sleep(_AGAIN)


def _refused(answer: httpx.Response) -> ApiError:
    try:
        message = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"the server answered {answer.status_code}, not as llcuda-server does"
    return ApiError(answer.status_code, message)


def endpoint_of(file: BinaryIO, name: str) -> str:
    """The path that the first request of an input is for.

    Raises:
        LlcudaError: it is no input of a batch.
    """
    for line in file:
        text = line.removeprefix(b"\xef\xbb\xbf").strip()
        if not text:
            continue
        try:
            url = json.loads(text)["url"]
        except (ValueError, KeyError, TypeError, RecursionError):
            url = None
        if not isinstance(url, str):
            raise LlcudaError(
                f'{name}: the first line is no request such as {{"custom_id": "a", "method": '
                '"POST", "url": "/v1/chat/completions", "body": {…}}; for prompts, leave --api out'
            )
        return url
    raise LlcudaError(f"{name} holds no request: there is nothing to do")
