"""Faults as they strike: the bytes that go wrong on a connection, and how it ends."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable

from . import pages
from .answer import Answer, RequestError
from .faults import Fault
from .peer import Peer

_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
#: What is sent first, and then again and again, by kind of fault.
_ENDLESS = {
    "endless-headers": (
        b"HTTP/1.1 200 OK\r\n",
        b"".join(b"X-Filler: %b\r\n" % (b"x" * 100) for _ in range(100)),
    ),
    "endless-interim": (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 1000),
    "endless-body": (_JSON + b'\r\n{"content":"', b"x" * 65_536),
    # Members of one file: each unpacks to 16 MiB.
    "gzip": (_JSON + b"Content-Encoding: gzip\r\n\r\n", zlib.compress(bytes(1 << 24), 9, 31)),
}
_NONSENSE = {
    "error-event": b'data: {"error":{"code":500,"message":"synthetic error",'
    b'"type":"server_error"}}\n\n',
    "not-json": b"data: this is not JSON\n\n",
    "wrong-types": b'data: {"index":"0","content":17,"tokens":"x","stop":"no"}\n\n',
}


def strike(peer: Peer, answer: Answer, fault: Fault, end: Callable[[Peer], None]) -> None:
    """Go wrong in the middle of a stream; `end` is called where the answer ends by it."""
    peer.pulling = False
    peer.update()
    if fault.kind in _NONSENSE:
        peer.send(pages.chunk(_NONSENSE[fault.kind]) + b"0\r\n\r\n")
        end(peer)
    elif fault.kind == "no-final":
        peer.send(b"0\r\n\r\n")
        end(peer)
    elif fault.kind == "huge-line":
        peer.send(pages.chunk(b'data: {"index":0,"content":"'))
        peer.endless = pages.chunk(b"x" * 65_536)
        peer.update()
    else:
        if fault.kind == "bad-chunk":
            peer.send(b"zz\r\nnot a chunk\r\n")
        elif fault.kind == "cut":
            whole = answer.render(time.monotonic_ns())
            peer.send(whole[: len(whole) // 2])
        interrupt(peer, fault)


def interrupt(peer: Peer, fault: Fault) -> None:
    """Say no more: hold the connection, or end it."""
    if fault.kind == "stall":
        peer.held = True
    elif fault.kind == "reset":
        peer.reset()
    else:
        peer.hang_up()


def strike_early(peer: Peer, fault: Fault) -> None:
    """Go wrong before anything of an answer was sent.

    Raises:
        RequestError: the fault is an HTTP status.
    """
    if fault.kind == "http":
        raise RequestError(fault.after, "synthetic error")
    if fault.kind in ("busy", "loading"):
        status = 429 if fault.kind == "busy" else 503
        header = b"Retry-After: %d\r\n" % fault.after
        body = pages.error_body(status, "synthetic refusal")
        peer.send(pages.reply(body, status, headers=header))
        peer.hang_up()
    elif fault.kind == "json-error":
        peer.send(pages.reply(pages.error_body(fault.after or 500, "synthetic error")))
        peer.hang_up()
    elif fault.kind in _ENDLESS:
        head, peer.endless = _ENDLESS[fault.kind]
        peer.send(head)
        peer.update()
    elif fault.kind == "not-http":
        peer.send(b"\x00\x16\x03\x01this is not HTTP\r\n\r\n")
        peer.hang_up()
    elif fault.kind == "close":
        peer.hang_up()
    else:
        peer.held = True
