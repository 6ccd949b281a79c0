"""Which protocol the first bytes of a connection are, and the answer to HTTP where it is off."""

from __future__ import annotations

import re

#: Bytes that suffice to recognise HTTP; one does, too: our preface begins with no letter.
TELLING = 24
_BEGINNING = re.compile(rb"[A-Z]{1,20}( |\Z)")
_BODY = b"This port speaks the llcuda protocol, not HTTP (--no-http). Use llcuda-client.\n"
ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


def speaks_http(first: bytes) -> bool:
    """Whether these first bytes of a connection begin an HTTP request, with whatever method."""
    return _BEGINNING.match(first) is not None
