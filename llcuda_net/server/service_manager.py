"""What a service manager is told: that we serve, what we do, that we still live, that we stop.

systemd's protocol, sd_notify(3): a datagram of NAME=VALUE lines to the socket that $NOTIFY_SOCKET
names, a path or, with an @ in front, a name without a file. The variables are taken out of the
environment, so that no engine of ours answers in our name.

The watchdog (WatchdogSec=) is answered from the event loop: a server whose loop stands still is
what it is to find, and a busy one answers late, not never.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping

import structlog
import trio

from llcuda_net.util.terminal import one_line

log = structlog.get_logger(__name__)

#: Seconds between two looks at what is to be told, and between two answers to a watchdog at most.
_LOOK = 5.0
#: Answers in a watchdog's time.
_ANSWERS = 3
#: Seconds by which a start may take longer, told at each look: it takes as long as the model.
_MORE = 60.0
#: Seconds for a datagram to go out.
_SENDING = 1.0
#: Characters of a status.
_LONGEST = 200


class ServiceManager:
    """Tells what started us how we are; does nothing where that does not listen.

    Args:
        address: $NOTIFY_SOCKET; None: nobody listens.
        watchdog: seconds within which it is to be told that we live; None: it need not be.
        clock: seconds of CLOCK_MONOTONIC.
    """

    def __init__(
        self,
        address: str | None = None,
        watchdog: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._socket = None if address is None else _connected(address)
        self._watchdog = watchdog
        self._clock = clock
        self._state = "starting"
        self._status = ""

    @classmethod
    def take(cls, environment: MutableMapping[str, str] = os.environ) -> ServiceManager:
        """By the variables of the environment, which are removed from it."""
        address = environment.pop("NOTIFY_SOCKET", None)
        micros = environment.pop("WATCHDOG_USEC", "")
        whose = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
        watched = micros.isdecimal() and int(micros) > 0 and whose == str(os.getpid())
        return cls(address or None, int(micros) / 1e6 if watched else None)

    def __repr__(self) -> str:
        who = "nobody is told" if self._socket is None else self._state
        return f"<ServiceManager: {who}>"

    def __enter__(self) -> ServiceManager:
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def ready(self) -> None:
        """We serve; what was said of a start or a reload is over."""
        if self._state != "stopping":
            self._state = "ready"
            self._tell("READY=1")

    def reloading(self) -> None:
        """Settings are read again; `ready` ends it."""
        if self._state == "ready":
            self._state = "reloading"
            self._tell("RELOADING=1", f"MONOTONIC_USEC={int(self._clock() * 1e6)}")

    def reloaded(self) -> None:
        """They were, or were not to be had."""
        if self._state == "reloading":
            self.ready()

    def stopping(self, seconds: float) -> None:
        """We end, which may take so long."""
        if self._state != "stopping":
            self._state = "stopping"
            self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    async def keep_informed(self, describe: Callable[[], str]) -> None:
        """Tell what changes, and that we live, until cancelled; return where nobody listens.

        Args:
            describe: what we do, for people, in one line.
        """
        if self._socket is None:
            return
        pause = _LOOK if self._watchdog is None else min(_LOOK, self._watchdog / _ANSWERS)
        while True:
            self.look(describe())
            await trio.sleep(pause)

    def look(self, status: str) -> None:
        """Tell the status if it is another one, and that we live."""
        lines = []
        status = one_line(status)[:_LONGEST]  # a line more would be an assignment more
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        if self._watchdog is not None:
            lines.append("WATCHDOG=1")
        if self._state == "starting":
            lines.append(f"EXTEND_TIMEOUT_USEC={int(_MORE * 1e6)}")
        self._tell(*lines)

    def _tell(self, *lines: str) -> None:
        if self._socket is None or not lines:
            return
        try:
            self._socket.send("\n".join(lines).encode(errors="replace"))
        except OSError as error:  # it has gone, or takes nothing: no reason for us to end
            log.warning("service_manager_not_told", what=lines[0], reason=error.strerror)


def _connected(address: str) -> socket.socket | None:
    """A socket to that name; None, with a line in the log, where there is none."""
    out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        out.settimeout(_SENDING)
        out.connect("\0" + address[1:] if address.startswith("@") else address)
    except OSError as error:
        out.close()
        log.warning(
            "service_manager_not_told", address=address, reason=error.strerror or str(error)
        )
        return None
    return out
