"""Polls a server's status report from a thread; reconnects when the connection is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from llcuda_net.errors import ConnectError, LlcudaError

if TYPE_CHECKING:
    from llcuda_net.sync import Client

#: Seconds between two tries to connect.
_RETRY = 1.0


class Listener(Protocol):
    """Receives what comes, in the feed's thread."""

    def report(self, report: dict[str, Any]) -> None:
        """A report has come."""

    def lost(self, why: str) -> None:
        """There is no connection, or no answer."""

    def failed(self, error: LlcudaError) -> None:
        """The server refused us; no more reports will come."""


class Feed:
    """Reports every `interval` seconds.

    Args:
        dial: makes a connection.
        client: the first one; the feed closes it.
    """

    def __init__(self, dial: Callable[[], Client], client: Client, interval: float) -> None:
        self._dial = dial
        self._client: Client | None = client
        self._interval = interval
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, listener: Listener) -> None:
        """Start the thread: a daemon, since a refused connection may take long to end."""
        self._thread = threading.Thread(
            target=self.run, args=(listener,), name="llcuda-top", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Send nothing more."""
        self._stop.set()
        if self._client is not None:
            self._client.close()

    def run(self, listener: Listener) -> None:
        """Poll until stopped."""
        while not self._stop.is_set():
            began = time.monotonic()
            wait = self._interval
            try:
                if self._client is None:
                    self._client = self._dial()
                listener.report(self._client.status())
            except ConnectError as error:
                wait = _RETRY
                self._drop()
                self._report_loss(listener, str(error))
            except LlcudaError as error:
                self._drop()
                if not getattr(error, "retry", False):
                    if not self._stop.is_set():
                        listener.failed(error)
                    return
                wait = _RETRY
                self._report_loss(listener, str(error))
            self._stop.wait(max(0.0, wait - (time.monotonic() - began)))
        self._drop()  # a connection that was made while we were stopped

    def _report_loss(self, listener: Listener, why: str) -> None:
        if not self._stop.is_set():
            listener.lost(why)

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(LlcudaError):
                client.close()
