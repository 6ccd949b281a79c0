"""The cookie of a session: its name, how it is set, and how it is found in a request.

Browsers send a cookie to all ports of a host, so its name has the port. Whoever else serves from
this host can set one of our name: it is then one of several, and counts only if it is a session's.
Over TLS the name begins with `__Host-`, by which browsers take it from nobody but us, and
only over TLS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llcuda_net.server.http.request import Headers

#: Seconds that a session lasts, from when it was last renewed.
LIFE = 30 * 86_400
#: Ids that are looked at in one request; a browser sends one.
_MOST = 16
_PORT = re.compile(r":([0-9]{1,5})\Z")
_ID = re.compile(r"[A-Za-z0-9_-]{43}")  # of secrets.token_urlsafe(32)


def name_of(authority: str, *, secure: bool) -> str:
    """The name of the cookie of a server.

    Args:
        authority: the host and port by which the browser asks for it.
        secure: it does so over TLS.
    """
    found = _PORT.search(authority)
    port = int(found[1]) if found else 443 if secure else 80
    return f"__Host-llcuda_{port}" if secure else f"llcuda_{port}"


def names_of(authority: str, *, tls: bool) -> list[str]:
    """The names that it can have in a request, the one that counts first.

    Args:
        tls: the request came over TLS. Else there may be a proxy, to which it did.
    """
    secure = name_of(authority, secure=True)
    return [secure] if tls else [secure, name_of(authority, secure=False)]


def is_secure(name: str) -> bool:
    """Whether a cookie of this name is sent over TLS only."""
    return name.startswith("__Host-")


def ids(headers: Headers, name: str) -> Iterator[str]:
    """What the cookies of a name in a request hold, where that can be ids of sessions."""
    found = 0
    for line in headers.all("cookie"):
        for pair in line.split(";"):
            given, _, value = pair.partition("=")
            if given.strip(" \t") != name or not _ID.fullmatch(value.strip(" \t")):
                continue
            yield value.strip(" \t")
            found += 1
            if found == _MOST:
                return


def setting(name: str, id_: str | None) -> dict[str, str]:
    """The header field that sets a cookie for LIFE from now on.

    Args:
        id_: what it holds; None: the browser forgets it.
    """
    parts = [f"{name}={id_ or ''}", "Path=/", f"Max-Age={LIFE if id_ else 0}", "HttpOnly"]
    parts += ["SameSite=Strict", *(["Secure"] if is_secure(name) else [])]
    return {"Set-Cookie": "; ".join(parts)}
