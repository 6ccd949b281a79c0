"""The answer of this port to an HTTP client."""

from __future__ import annotations

#: Bytes that suffice to recognise HTTP.
TELLING = 4
_METHODS = (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"DELE", b"PATC", b"CONN", b"PRI ")
_BODY = b"This port speaks the llcuda protocol, not HTTP. Use llcuda-client.\n"
ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


def speaks_http(first: bytes) -> bool:
    """Whether these first bytes, TELLING at most, begin an HTTP request."""
    return any(method.startswith(first) for method in _METHODS)
