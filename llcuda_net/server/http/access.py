"""Who may come in over HTTP, and as whom.

With a token file a request needs one of its tokens, wherever it comes from, or the cookie of a
browser that is signed in. Browsers send the cookie for other pages, too, such as those of another
port of this host: so a request with it must show that it is of our own page.

Without a token file, any key is taken, and only this machine may come in. A browser on this machine
asks for every page that its user visits, so a request must show that no foreign page sent it: its
Host names this machine (a foreign name may lead here: DNS rebinding), its Origin is none or an
allowed one, and no proxy is between, behind which everybody would look like this machine.
"""

from __future__ import annotations

import re
import socket
from typing import NamedTuple

from llcuda_net.config.settings import Settings
from llcuda_net.config.token_file import Users
from llcuda_net.config.users import User, forwarded
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.page import cookies
from llcuda_net.server.http.page.sessions import Sessions, SignedIn
from llcuda_net.server.http.request import Headers, HttpRequest
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


#: Of answers to a browser that are somebody's: they are kept nowhere, and loaded by no other page.
PRIVATE = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
#: What Sec-Fetch-Site says of requests that a page of ours has sent, or a user by himself.
_SAME, _OWN = "same-origin", ("same-origin", "none")


class Caller(NamedTuple):
    """Whose a request is.

    Attributes:
        user: with their limits.
        session: by which that is known; None: by a token, or nobody needs one.
    """

    user: User
    session: SignedIn | None = None


class Access:
    """The rules of one server.

    Args:
        settings: which hosts and origins are allowed.
        users: by their tokens; may be reloaded.
        sessions: of browsers that are signed in.
    """

    def __init__(self, settings: Settings, users: Users, sessions: Sessions) -> None:
        self._users = users
        self._sessions = sessions if settings.page else None
        self._anybody = settings.allow_no_auth
        self._hosts = {host.lower().rstrip(".") for host in settings.allowed_host}
        self._origins = {origin.lower().rstrip("/") for origin in settings.cors_origin}
        self._forwarded_names: set[str] = set()
        self._own = {settings.host.lower(), socket.gethostname().lower()}

    def __repr__(self) -> str:
        return f"<Access: {self._users!r}>"

    async def ready(self, request: HttpRequest) -> None:
        """Return when `check` knows the session of a request.

        Early in a start it does not; nor one that another server has begun.
        """
        if self._sessions is not None and "cookie" in request.headers:
            names = cookies.names_of(request.authority, tls=request.tls)
            ids = [id_ for name in names for id_ in cookies.ids(request.headers, name)]
            await self._sessions.ready(ids)

    def check(self, request: HttpRequest) -> Caller:
        """Whose this request is.

        Raises:
            HttpError: it may not come in.
        """
        headers = request.headers
        if not self._users.required:
            self._check_local(request)
        elif "authorization" not in headers and "x-api-key" not in headers:
            session = self.session(request)
            if session is not None:
                self.check_own(request, session)
                return Caller(self._forwarded(session.user, headers), session)
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
        return Caller(self._forwarded(user, headers))

    def session(self, request: HttpRequest) -> SignedIn | None:
        """The session whose cookie a request has, whoever sent it."""
        if self._sessions is None or "cookie" not in request.headers:
            return None
        for name in cookies.names_of(request.authority, tls=request.tls):
            found = self._sessions.find(cookies.ids(request.headers, name))
            if found is not None:
                return found._replace(cookie=name)
        return None

    def check_own(self, request: HttpRequest, session: SignedIn | None = None) -> None:
        """Refuse what another page than ours may have sent.

        Args:
            session: of the request; None: it begins one, and a program may do so, too.

        Raises:
            HttpError: as said.
        """
        headers = request.headers
        origins, sites = headers.all("origin"), headers.all("sec-fetch-site")
        reads = request.method in ("GET", "HEAD")
        tls = request.tls or (session is not None and cookies.is_secure(session.cookie))
        foreign = [one for one in origins if not _is_own(one, request.authority, tls=tls)]
        foreign += [one for one in sites if one not in (_OWN if reads else (_SAME,))]
        if foreign:
            raise _forbidden(
                f"only the page of this server itself may use a session: the request is of "
                f"{foreign[0]!r:.100}; others send a token, as Authorization: Bearer TOKEN"
            )
        if session is not None and not (reads or origins or sites):
            raise _forbidden(
                "with the cookie of a session, a request needs an Origin or Sec-Fetch-Site, as "
                "browsers send them; programs send a token, as Authorization: Bearer TOKEN"
            )

    def _forwarded(self, user: User, headers: Headers) -> User:
        if not user.forwards:
            return user
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

    def _check_local(self, request: HttpRequest) -> None:
        headers, host = request.headers, host_of(request.authority)
        if not self._is_ours(host, request.local):
            raise _forbidden(
                f"this server answers only requests for this machine, not for {host!r:.100}: if "
                f"that is its name, start it with --allowed-host {_harmless(host)}",
            )
        origins = headers.all("origin")
        for origin in origins:
            if self._is_allowed(origin) or _is_own(origin, request.authority, tls=request.tls):
                continue
            raise _forbidden(
                f"pages of {origin!r:.100} may not use this server: if they should, start it with "
                f"--cors-origin {_harmless(origin)}"
            )
        # A page needs no Origin to have a picture or a script loaded, or a link followed.
        for site in [] if origins else headers.all("sec-fetch-site"):
            if site not in _OWN:
                raise _forbidden(f"pages of other origins ({site!r:.40}) may not use this server")
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

    def _is_allowed(self, origin: str) -> bool:
        return origin.lower() in self._origins or "*" in self._origins

    def cors(self, headers: Headers) -> dict[str, str]:
        """What lets the page that asks read the answer; nothing where it may not."""
        if not self._origins:
            return {}
        fields = {"Vary": "Origin"}
        origin = headers.get("origin")
        if origin is not None and self._is_allowed(origin):
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


def _is_own(origin: str, authority: str, *, tls: bool) -> bool:
    """Whether an origin is that of this server. Where it has no TLS, a proxy before it may."""
    scheme, _, host = origin.lower().partition("://")
    return scheme in (("https",) if tls else ("http", "https")) and host == authority.lower() != ""


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
