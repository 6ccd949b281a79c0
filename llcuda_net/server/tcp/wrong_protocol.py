"""Which protocol the first bytes of a connection are, and the answer to HTTP where it is off."""

from __future__ import annotations

#: Bytes that suffice to recognise HTTP.
TELLING = 4
_METHODS = (
    b"GET ",
    b"POST",
    b"HEAD",
    b"PUT ",
    b"OPTI",
    b"DELE",
    b"PATC",
    b"CONN",
    b"TRAC",
    b"PRI ",
)
_BODY = b"This port speaks the llcuda protocol, not HTTP (--no-http). Use llcuda-client.\n"
ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


def speaks_http(first: bytes) -> bool:
    """Whether these first bytes, TELLING at most, begin an HTTP request."""
    return any(method.startswith(first) for method in _METHODS)
