"""Who may come in over HTTP, and as whom.

With a token file a request needs one of its tokens, wherever it comes from. Without one, any key
is taken, and only this machine may come in. A browser on this machine asks for every page that its
user visits, so a request must show that no foreign page sent it: its Host names this machine (a
foreign name may lead here: DNS rebinding), its Origin is none or an allowed one, and no proxy is
between, behind which everybody would look like this machine.
"""

from __future__ import annotations

import re
import socket

from llcuda_net.config.settings import Settings
from llcuda_net.config.token_file import Users
from llcuda_net.config.users import User, forwarded
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.request import Headers
from llcuda_net.util.address import is_loopback

#: Users that tokens which forward may name: of each, something is kept until the server's end.
MAX_FORWARDED = 10_000
#: Fields in which Open WebUI names its users, the first that is there; and what they may hold.
_FORWARDED_USER = ("x-openwebui-user-id", "x-openwebui-user-email")
#: Fields that proxies add, beside X-Forwarded-*.
_PROXIES = ("forwarded", "via", "x-real-ip")
_ID = re.compile(r"\A[A-Za-z0-9._@+-]{1,64}\Z")
_HEADER_NAMES = re.compile(r"\A[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,1000}\Z")
#: Fields that a page of another origin may read.
_EXPOSED = (
    "x-request-id, request-id, x-llcuda-generation, x-llcuda-ignored, retry-after, "
    "retry-after-ms, x-should-retry"
)


class Access:
    """The rules of one server.

    Args:
        settings: which hosts and origins are allowed.
        users: by their tokens; may be reloaded.
    """

    def __init__(self, settings: Settings, users: Users) -> None:
        self._users = users
        self._anybody = settings.allow_no_auth
        self._hosts = {host.lower().rstrip(".") for host in settings.allowed_host}
        self._origins = {origin.lower().rstrip("/") for origin in settings.cors_origin}
        self._forwarded_names: set[str] = set()
        self._own = {settings.host.lower(), socket.gethostname().lower()}

    def __repr__(self) -> str:
        return f"<Access: {self._users!r}>"

    def check(self, headers: Headers, authority: str, local: str) -> User:
        """Whose request this is.

        Args:
            authority: the host and port that the request is for, by its target or Host.
            local: the address of this machine at which it came in; empty where there is none.

        Raises:
            HttpError: it may not come in.
        """
        if not self._users.required:
            self._check_local(headers, authority, local)
        user = self._users.find(_token(headers))
        if user is None:
            raise HttpError(
                401,
                "the API key is missing or wrong: send a token of the server's token file as "
                "Authorization: Bearer TOKEN",
                type="authentication_error",
                code="invalid_api_key",
                headers={"WWW-Authenticate": 'Bearer realm="llcuda"'},
            )
        return self._forwarded(user, headers) if user.forwards else user

    def _forwarded(self, user: User, headers: Headers) -> User:
        for name in _FORWARDED_USER:
            value = headers.get(name)
            if value is None:
                continue
            if not _ID.match(value):
                raise HttpError(
                    400, f"{name} must be 1 to 64 of the letters A-Z and a-z, digits, and . _ @ + -"
                )
            found = forwarded(user, value)
            if found.name not in self._forwarded_names:
                if len(self._forwarded_names) >= MAX_FORWARDED:
                    raise HttpError(
                        429,
                        f"more than {MAX_FORWARDED:,} users were named since the server's start",
                        type="rate_limit_error",
                        code="too_many_users",
                    )
                self._forwarded_names.add(found.name)
            return found
        return user

    def _check_local(self, headers: Headers, authority: str, local: str) -> None:
        host = host_of(authority)
        if not self._is_ours(host, local):
            raise _forbidden(
                f"this server answers only requests for this machine, not for {host!r:.100}: if "
                f"that is its name, start it with --allowed-host {_harmless(host)}",
            )
        for origin in headers.all("origin"):
            if self._is_known(origin, authority):
                continue
            raise _forbidden(
                f"pages of {origin!r:.100} may not use this server: if they should, start it with "
                f"--cors-origin {_harmless(origin)}"
            )
        if self._anybody:
            return
        for name in headers:
            if name in _PROXIES or name.startswith("x-forwarded-"):
                raise _forbidden(
                    f"the request came through a proxy ({name:.40}), and behind a proxy everybody "
                    "looks like this machine: give the server an --auth-token-file"
                )

    def _is_ours(self, host: str, local: str) -> bool:
        if not host:
            return False
        if is_loopback(host) or host.endswith(".localhost"):
            return True
        return host in self._hosts or host in self._own or host == local

    def _is_known(self, origin: str, authority: str) -> bool:
        if origin.lower() in self._origins or "*" in self._origins:
            return True
        scheme, _, host = origin.lower().partition("://")
        return scheme in ("http", "https") and host == authority.lower() != ""

    def cors(self, headers: Headers) -> dict[str, str]:
        """What lets the page that asks read the answer; nothing where it may not."""
        if not self._origins:
            return {}
        fields = {"Vary": "Origin"}
        origin = headers.get("origin")
        if origin is not None and (origin.lower() in self._origins or "*" in self._origins):
            # Safe to send back: it is one of ours, or was checked.
            if "*" in self._origins:
                origin = "*"
            fields["Access-Control-Allow-Origin"] = origin
            fields["Access-Control-Expose-Headers"] = _EXPOSED
        return fields

    def preflight(self, headers: Headers, methods: str) -> dict[str, str]:
        """The answer to a browser that asks what a page may send; nothing where it asks not."""
        wanted = headers.get("access-control-request-method")
        if wanted is None or "Access-Control-Allow-Origin" not in self.cors(headers):
            return {}
        fields = {"Access-Control-Allow-Methods": methods, "Access-Control-Max-Age": "600"}
        names = headers.get("access-control-request-headers")
        if names is not None and _HEADER_NAMES.match(names):
            fields["Access-Control-Allow-Headers"] = names
        return fields


def host_of(authority: str) -> str:
    """The host of HOST:PORT, in lower case, without the brackets of IPv6; empty if it is none."""
    host, bracket, rest = authority.lower().partition("]")
    if bracket:
        well = host.startswith("[") and re.fullmatch(r"(:[0-9]{0,5})?", rest)
        return host[1:] if well else ""
    host, _, port = host.partition(":")
    if (port and not port.isdigit()) or not re.fullmatch(r"[a-z0-9._-]{1,255}", host):
        return ""
    return host.removesuffix(".")


def _token(headers: Headers) -> str | None:
    given = headers.all("authorization") or headers.all("x-api-key")
    if len(given) != 1:  # of two, one would be somebody else's guess
        return None
    value = given[0]
    if "authorization" in headers:
        scheme, _, value = value.partition(" ")
        if scheme.lower() != "bearer":
            return None
    return value.strip().encode("latin-1").decode("utf-8", "replace")


def _harmless(text: str) -> str:
    """An operator may copy it to a command line."""
    return text if re.fullmatch(r"[A-Za-z0-9.:/_-]{1,100}", text) else "..."


def _forbidden(message: str) -> HttpError:
    return HttpError(403, message, type="permission_error", code="forbidden")
