"""Who is signed in: sessions in memory, checked there, and kept beside results.

An id is random and known to its browser only; we know its hash. A session belongs to the token by
which it began: where the token file has that no more, or gives it to another user, the session is
over, whenever it is looked at next and when the file is read again.

Where several servers keep sessions in one database, one that is not known here is looked up there,
and one that ends elsewhere ends here when that is heard of, within a second.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import structlog
import trio

from llcuda_net.config.token_file import Users, hash_of
from llcuda_net.config.users import User
from llcuda_net.errors import RequestError
from llcuda_net.server.http.page.cookies import LIFE
from llcuda_net.server.objects import KeptObjects
from llcuda_net.storage.objects import sessions as stored
from llcuda_net.storage.objects.sessions import Session

log = structlog.get_logger(__name__)

#: Browsers in which one user is signed in: one more ends the session that was unused for longest.
MOST = 50
#: Seconds after which a session that is used is renewed, and between two looks for expired ones.
RENEWED, _EVERY = 3600, 3600.0
#: Seconds after which a store that refused is asked again what others have changed.
_AGAIN = 5.0


class SignedIn(NamedTuple):
    """A session that counts.

    Attributes:
        id: what the cookie holds.
        session: what is known of it.
        user: whose it is, with the limits of now.
        cookie: the name of the cookie that the request had it in.
    """

    id: str
    session: Session
    user: User
    cookie: str = ""


class Sessions:
    """Those of one server.

    Args:
        objects: keeps them; where it keeps nothing, they end with the server.
        users: by their tokens; may be reloaded.
        now: Unix time in seconds.

    Attributes:
        on_ended: called when sessions have ended elsewhere.
    """

    def __init__(
        self, objects: KeptObjects, users: Users, now: Callable[[], float] = time.time
    ) -> None:
        self._objects = objects
        self._users = users
        self._now = now
        self._known: dict[bytes, Session] = {}
        #: The hashes of tokens, of sessions that were seen since the start: only who has the id
        #: knows which token a session is bound to.
        self._tokens: dict[bytes, bytes] = {}
        self._over: set[bytes] = set()  # to be removed from the store
        self.on_ended: Callable[[], None] = lambda: None
        #: Those that others have changed; None: all, perhaps.
        self._stale: set[bytes] | None = set()
        self._changing = trio.Lock()
        self._woken = trio.Event()
        self._loaded = trio.Event()

    def __repr__(self) -> str:
        return f"<Sessions {len(self._known)}>"

    async def load(self) -> None:
        """Read those that an earlier server has kept; the first time."""
        async with self._changing:
            if self._loaded.is_set():
                return
            if self._objects.keeps:
                try:
                    found = await self._objects.read(stored.every)
                except RequestError as error:
                    log.error("sessions_not_read", code=error.code, reason=error.message)
                else:
                    self._known = {one.hash: one for one in found}
            self._loaded.set()

    async def ready(self, ids: Iterable[str] = ()) -> None:
        """Return when it is known which there are, and whether these are any of them."""
        await self._loaded.wait()
        if not self._objects.shared:
            return
        unknown = {_hash(id_) for id_ in ids} - self._known.keys()
        if unknown:
            async with self._changing:
                with contextlib.suppress(RequestError):  # then nobody is known by them
                    await self._look_up(unknown)

    def changed(self, hashes: Iterable[bytes] | None) -> None:
        """Sessions have changed elsewhere.

        Args:
            hashes: which; None: any may have.
        """
        if hashes is None:
            self._stale = None
        elif self._stale is not None:
            self._stale |= {*hashes}
        self._woken.set()

    async def run(self) -> None:
        """Remove those that are over from the store, until cancelled."""
        await self.load()
        while True:
            self._woken = trio.Event()
            pause = _EVERY
            try:
                async with self._changing:
                    await self._refresh()
                    await self._write()
            except RequestError as error:
                log.warning("sessions_not_removed", code=error.code, reason=error.message)
                pause = _AGAIN if self._objects.shared else _EVERY
            with trio.move_on_after(pause):
                await self._woken.wait()

    def find(self, ids: Iterable[str]) -> SignedIn | None:
        """The session of a request; None: none of these ids is one's, or they are of several."""
        if not self._users.required:
            return None
        found = {one.session.hash: one for id_ in ids if (one := self._find(id_)) is not None}
        return next(iter(found.values())) if len(found) == 1 else None

    def check(self) -> None:
        """The users have changed: end the sessions whose tokens are gone."""
        if not self._users.required:
            return
        for session in list(self._known.values()):
            token = self._tokens.get(session.hash)
            if self._users.bound(session.user, partial(_fits, token)) is None:
                self._drop(session)

    async def begin(self, token: str, instead: SignedIn | None = None) -> SignedIn | None:
        """Begin a session; None: the token is nobody's.

        Args:
            instead: the one that the browser has, which ends.

        Raises:
            RequestError: it cannot be kept.
        """
        await self.ready()
        user = self._users.find(token) if self._users.required else None
        if user is None:
            return None
        id_ = secrets.token_urlsafe(32)
        now = int(self._now())
        made = Session(_hash(id_), user.name, _bound(id_, hash_of(token)), now, now + LIFE)
        async with self._changing:
            own = [one for one in self._known.values() if one.user == user.name]
            own.sort(key=lambda one: one.expires)
            ended = [one.hash for one in own[: max(0, len(own) - MOST + 1)]]
            if instead is not None:
                ended.append(instead.session.hash)
            await self._write(made, ended)
            self._tokens[made.hash] = hash_of(token)
        log.info("signed_in", user=user.name)
        return SignedIn(id_, made, user)

    async def renew(self, one: SignedIn) -> SignedIn:
        """The same session, which lasts longer; the cookie is to be set again if it does.

        Where that cannot be kept it is renewed another time.
        """
        now = int(self._now())
        if one.session.expires - LIFE > now - RENEWED:
            return one
        async with self._changing:
            if one.session.hash not in self._known:  # it ended meanwhile
                return one
            renewed = replace(one.session, expires=now + LIFE)
            try:
                await self._write(renewed)
            except RequestError as error:
                log.warning("session_not_renewed", code=error.code, reason=error.message)
                return one
        return one._replace(session=renewed)

    async def end(self, user: str, hashes: Iterable[bytes] | None = None) -> int:
        """End sessions of a user: these, or all; returns how many there were.

        Raises:
            RequestError: that cannot be kept.
        """
        async with self._changing:
            own = {one.hash for one in self._known.values() if one.user == user}
            ended = own if hashes is None else own & set(hashes)
            await self._write(None, ended)
        log.info("signed_out", user=user, sessions=len(ended))
        return len(ended)

    # -- within -------------------------------------------------------------------------------

    def _find(self, id_: str) -> SignedIn | None:
        session = self._known.get(_hash(id_))
        if session is None or session.expires <= self._now():
            return None

        def fits(token: bytes) -> bool:
            if not hmac.compare_digest(session.bound, _bound(id_, token)):
                return False
            self._tokens[session.hash] = token
            return True

        user = self._users.bound(session.user, fits)
        if user is None:
            self._drop(session)
            return None
        return SignedIn(id_, session, user)

    def _drop(self, session: Session) -> None:
        self._forget([session.hash])
        self._over.add(session.hash)
        self._woken.set()

    def _forget(self, hashes: Iterable[bytes]) -> None:
        for one in hashes:
            self._known.pop(one, None)
            self._tokens.pop(one, None)

    async def _refresh(self) -> None:
        """Know what others have changed; under the lock.

        Raises:
            RequestError: the store does not say.
        """
        known = [one for one in self._known if self._stale is None or one in self._stale]
        if known:
            await self._look_up(known)
            if any(one not in self._known for one in known):
                self.on_ended()
        self._stale = set()

    async def _look_up(self, hashes: Collection[bytes]) -> None:
        """Know of some what the store has; under the lock."""
        found = await self._objects.read(lambda db: stored.some(db, hashes))
        there = {one.hash: one for one in found if one.hash not in self._over}
        self._forget(one for one in hashes if one not in there)
        self._known.update(there)

    async def _write(self, made: Session | None = None, ended: Iterable[bytes] = ()) -> None:
        """Change the store and then the memory; under the lock. Removes what is over, too."""
        now = self._now()
        late = [one.hash for one in self._known.values() if one.expires <= now]
        gone = {*ended, *late, *self._over}
        if self._objects.keeps and (gone or made is not None):
            await self._objects.write(lambda db: stored.change(db, made, gone))
        self._forget(gone)
        self._over -= gone
        if made is not None:
            self._known[made.hash] = made


def _hash(id_: str) -> bytes:
    return hashlib.sha256(id_.encode()).digest()


def _fits(token: bytes | None, known: bytes) -> bool:
    """Whether a session may be bound to a known token, by what is known of its own."""
    return token is None or token == known


def _bound(id_: str, token: bytes) -> bytes:
    return hmac.digest(id_.encode(), token, "sha256")
