"""One client connection on the server: handshake, requests in, frames out.

What goes wrong here ends this session and no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import structlog
import trio

from llcuda_net.config.users import User
from llcuda_net.errors import InvalidRequest, Overloaded, RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory import sizes
from llcuda_net.server.tcp.fitting import Replies
from llcuda_net.server.tcp.host import SessionHost
from llcuda_net.server.tcp.messages import canonical, uploads_in
from llcuda_net.server.tcp.peers.stream import PeerStream
from llcuda_net.server.tcp.queries import Queries
from llcuda_net.server.tcp.stream import GenerationStream
from llcuda_net.server.tcp.uploads import Uploads
from llcuda_net.server.tcp.write_buffer import WriteBuffer
from llcuda_net.server.tcp.wrong_protocol import ANSWER, TELLING, speaks_http
from llcuda_net.storage.records import Result
from llcuda_net.util.logs import code_of, reason_of
from llcuda_net.util.time_ids import is_uuid7
from llcuda_protocol import (
    Attach,
    Cancel,
    Connection,
    ConnectionClosed,
    ConnectionState,
    Credit,
    Delete,
    Embed,
    Error,
    ErrorCode,
    Event,
    Generate,
    GoAway,
    Hello,
    Invalid,
    Limits,
    ListGenerations,
    Ping,
    Pong,
    RemoteProtocolError,
    Role,
    Search,
    Status,
    Upload,
    Welcome,
)

log = structlog.get_logger(__name__)

#: Features of this server, announced in the handshake.
FEATURES = [
    *("generate", "attach", "embed", "status", "search", "list", "pool", "splice"),
    *("channels", "uploads", "delete", "ignored", "previous", "transient"),
]
_READ = 64 << 10
#: Events after which the others have their turn: one read may hold thousands of pings.
_TURN = 64
#: Seconds for the last bytes of an ending session to leave.
_FAREWELL = 2.0


class Session:
    """Serves one connection until either side ends it.

    Args:
        server: answers its requests.
        stream: the connection, TLS included where there is TLS.
        number: names the session in the log.
        first: what was read of it already.
        greet_by: when the client must have greeted.
        is_full: whether one more client would be too many.
        on_greeted: called when the client has been let in.

    Attributes:
        user: whose token the client gave; there is none before it is let in.
    """

    user: User

    def __init__(
        self,
        server: SessionHost,
        stream: trio.abc.Stream,
        number: int,
        *,
        first: bytes = b"",
        greet_by: float,
        is_full: Callable[[], bool],
        on_greeted: Callable[[Session], None],
    ) -> None:
        settings = server.settings
        self._number = number
        self._is_full = is_full
        self._on_greeted = on_greeted
        self.greeted = False
        #: Ends the session, from outside.
        self.scope = trio.CancelScope()
        #: Ends it, too, after the bytes that wait have been sent.
        self._listening = trio.CancelScope()
        self._server = server
        self._stream = stream
        # No more is announced than there is room for.
        max_frame = min(settings.max_frame, server.incoming.share)
        self._connection = Connection(Role.SERVER, Limits(max_frame, settings.max_streams))
        self._buffer = WriteBuffer(
            stream, self._pump_all, settings.write_timeout, server.unflushed, server.unsent
        )
        self._incoming = 0  # bytes of a frame that is not whole
        self._streams: dict[int, GenerationStream] = {}
        self._attaching: dict[int, Cancel | None] = {}
        self._replies = Replies(self._connection, self._buffer)
        self._queries = Queries(
            server,
            self._replies,
            self._buffer,
            get_user=lambda: self.user,
            only_here=lambda: self.is_peer,
        )
        self._uploads = Uploads(self._replies, server.incoming, lambda: self.user.name)
        self._nursery: trio.Nursery
        self._log = log.bind(session=number)
        self._first_bytes = first[:TELLING]
        self._received = first
        self._greet_by = greet_by
        self._takes_epochs = False
        self._find_user: Callable[[], User | None] = _nobody
        #: The client is another server of the cluster.
        self.is_peer = False

    def __repr__(self) -> str:
        user = f" user={self.user.name!r}" if self.greeted else " greeting"
        return (
            f"<Session {self._number}{user} {self._connection.state}"
            f" streams={self.open_streams} unsent={len(self._buffer)}>"
        )

    @property
    def busy(self) -> bool:
        """Whether a request is open or bytes wait to be sent."""
        return self._connection.open_streams > 0 or self._buffer.busy

    @property
    def open_streams(self) -> int:
        """Requests that are open."""
        return self._connection.open_streams

    async def run(self) -> None:
        """Serve; returns when the session is over, whatever ended it."""
        try:
            with self.scope:
                async with trio.open_nursery() as self._nursery:
                    self._nursery.start_soon(self._buffer.run)
                    await self._serve()
                    self._nursery.cancel_scope.cancel()
        except* trio.TooSlowError:
            self._log.warning("session_stalled", seconds=self._server.settings.write_timeout)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            self._log.debug("session_lost")
        finally:
            self._drop_streams()
            self._buffer.close()
            self._holds(0)
            self._uploads.close()
            await trio.aclose_forcefully(self._stream)

    async def _serve(self) -> None:
        try:
            greeted = False
            with trio.move_on_at(self._greet_by):
                greeted = await self._handshake()
            if greeted:
                self._on_greeted(self)
                with self._listening:
                    await self._listen()
            elif self._connection.state is ConnectionState.NEW:
                self._refuse(ErrorCode.HANDSHAKE_TIMEOUT, "no greeting came in time")
        except RemoteProtocolError as error:
            reason = reason_of(error.code, error.message)
            self._log.info("protocol_error", code=error.code, detail=reason)
            self._log.debug("protocol_error", message=error.message)
            http = error.code is ErrorCode.BAD_PREFACE and speaks_http(self._first_bytes)
            self._buffer.add(ANSWER if http else error.reply)
        except Overloaded as error:  # of a frame that has not come whole
            self._log.warning("no_room", detail=error.message)
            self._refuse(ErrorCode.TOO_MANY_CONNECTIONS, error.message, retry=True)
            self._holds(0)
        self._drop_streams()
        self._buffer.flush()
        with trio.move_on_after(_FAREWELL):
            await self._buffer.drained()
            if isinstance(self._stream, trio.SocketStream):
                # Closing with unread bytes would reset the connection and lose our last words.
                await self._stream.send_eof()
                while await self._stream.receive_some(_READ):
                    pass

    async def _listen(self) -> None:
        handled = 0
        while (event := await self._next_event()) is not None:
            self._handle(event)
            handled += 1
            # A request takes as long as many a ping: hundreds may come with one read, too.
            if handled % _TURN == 0 or isinstance(event, Generate):
                await trio.lowlevel.checkpoint()

    # -- handshake ----------------------------------------------------------------------------

    async def _handshake(self) -> bool:
        event = await self._next_event()
        if not isinstance(event, Hello):
            return False
        proof: bytes | None = None
        if event.peer is None:
            user = self._server.users.find(event.token)
            self._find_user = partial(self._server.users.find, event.token)
        else:
            greeted = self._server.greet_peer(event, under_tls=_is_tls(self._stream))
            user, proof, self._find_user = greeted or (None, None, _nobody)
            self.is_peer = True
        if user is None:
            given = event.token is not None
            self._log.warning("unauthorized", token_given=given, peer=self.is_peer)
            self._refuse(ErrorCode.UNAUTHORIZED, "the token is missing or wrong")
            return False
        if self._server.draining and self._server.shared and not self.is_peer:
            self._refuse(
                ErrorCode.SHUTTING_DOWN, "the server is shutting down; try again later", retry=True
            )
            return False
        if self._is_full() and not self.is_peer:
            self._refuse(
                ErrorCode.TOO_MANY_CONNECTIONS, "too many connections; try again later", retry=True
            )
            return False
        self.user = user
        self._takes_epochs = "epochs" in event.features
        limits = self._connection.limits
        self._replies.send(
            Welcome(
                self._connection.version or 0,
                limits.max_frame,
                limits.max_streams,
                self._server.agent,
                FEATURES,
                self._uploads.most,
                proof,
            )
        )
        self._buffer.flush()
        self.greeted = True
        return True

    def _refuse(self, code: ErrorCode, message: str, *, retry: bool = False) -> None:
        self._replies.send(Error(0, code, message, retry))

    # -- events -------------------------------------------------------------------------------

    async def _next_event(self) -> Event | None:
        """The next event; None when the client has closed."""
        while True:
            event = self._connection.next_event()
            if isinstance(event, ConnectionClosed):
                return None
            if isinstance(event, Error):  # a client's only error is of the whole connection
                self._log.info("client_gave_up", code=code_of(event.code))
                self._log.debug("client_gave_up", code=event.code, message=event.message)
                return None
            if event is not None:
                return event
            self._buffer.flush()
            if self._buffer.full:
                await self._buffer.drained()
            self._holds(self._connection.buffered)
            data = self._received or await self._stream.receive_some(_READ)
            self._received = b""
            self._connection.receive_data(data)

    def _holds(self, now: int) -> None:
        """So many bytes of a frame that is not whole."""
        owner = self.user.name if self.greeted else ""  # hello is too small to count
        self._server.incoming.change(owner, self._incoming, now)
        self._incoming = now

    def _handle(self, event: Event) -> None:
        asked = event if isinstance(event, Generate | Attach | Search) else None
        if asked is not None and asked.peer is not None and not self.is_peer:
            what = "peer is what servers of a cluster say to each other: leave it out"
            self._replies.fail(asked.stream, InvalidRequest(what))
        elif isinstance(event, Generate):
            if self._server.starting or event.previous is not None or self._server.shared:
                self._attaching[event.stream] = None
                self._nursery.start_soon(self._generate_later, event)
            else:
                self._generate(event)
        elif isinstance(event, Credit):
            stream = self._streams.get(event.stream)
            if stream is not None:
                stream.pump()
        elif isinstance(event, Attach):
            self._attaching[event.stream] = None
            self._nursery.start_soon(self._attach, event)
        elif isinstance(event, Cancel):
            self._cancel(event)
        elif isinstance(event, Upload):
            self._uploads.take(event, self._nursery)
        elif isinstance(event, Embed | Search | ListGenerations | Status | Delete):
            self._queries.begin(event, self._nursery)
        elif isinstance(event, Ping):
            self._replies.send(Pong(event.payload))
        elif isinstance(event, Invalid):
            self._log.debug("invalid_request", stream=event.stream, detail=event.message)
            self._stop(event.stream, InvalidRequest(event.message))

    def _generate(self, event: Generate, found: Result | Generation | None = None) -> None:
        """Submit a request, of which `find_previous` has found this, or nothing was looked for."""
        messages = event.messages or []
        uploads: list[int] = []
        try:
            if messages:
                uploads = uploads_in(messages)
                event = replace(event, messages=canonical(messages, self._uploads.find))
            if isinstance(found, Generation):
                generation = found
            else:
                api = None if event.peer is None else event.peer.get("api")
                generation = self._server.intake.submit(event, self.user, api, found)
        except RequestError as error:
            self._replies.fail(event.stream, error)
            if error.retry:
                return  # with the same uploads, perhaps
        else:
            self._read(event, generation)
        for number in uploads:
            self._uploads.drop(number)

    async def _generate_later(self, event: Generate) -> None:
        """Generate when the server has started, and the previous generation is found."""
        found: Result | Generation | None = None
        try:
            size = sizes.of(event.prompt) + sizes.of(event.messages)
            await self._server.started(self.user, size)
            if event.previous is not None:
                found = await self._server.generations.find_previous(event, self.user)
            if self._server.shared and not isinstance(found, Generation):
                found = await self._begin(event, found)
        except RequestError as error:
            del self._attaching[event.stream]
            self._replies.fail(event.stream, error)
        else:
            cancel = self._attaching.pop(event.stream)
            if not self._connection.is_open(event.stream):
                if isinstance(found, Generation):
                    self._server.left(found)  # nobody will read it
            else:
                self._generate(event, found)
                if cancel is not None:
                    self._cancel(cancel)
        self._buffer.flush()

    async def _begin(self, event: Generate, previous: Result | None) -> Generation:
        """Begin it on any server of the cluster."""
        if event.messages:
            event = replace(event, messages=canonical(event.messages, self._uploads.find))
        peer = event.peer or {}
        id_ = peer.get("id")
        return await self._server.intake.begin(
            event,
            self.user,
            peer.get("api"),
            previous,
            id_=id_ if isinstance(id_, str) and is_uuid7(id_) else None,
            here=self.is_peer,
        )

    async def _attach(self, event: Attach) -> None:
        try:
            generation = await self._server.generations.find(
                event, self.user, only_here=self.is_peer
            )
        except RequestError as error:
            del self._attaching[event.stream]
            self._replies.fail(event.stream, error)
        else:
            cancel = self._attaching.pop(event.stream)
            if self._connection.is_open(event.stream):
                self._read(event, generation)
                if cancel is not None:
                    self._cancel(cancel)
        self._buffer.flush()

    def _read(self, event: Generate | Attach, generation: Generation) -> None:
        """Answer a request with what a generation has and will have."""
        make: Callable[..., GenerationStream] = GenerationStream
        if self.is_peer:
            make = partial(PeerStream, asked=isinstance(event, Attach))
        stream = make(
            event.stream,
            generation,
            self._connection,
            self._buffer,
            first=event.first if isinstance(event, Attach) else 0,
            with_ids=event.tokens,
            with_durable=event.durable,
            with_splices=event.splices,
            with_epochs=self._takes_epochs,
            with_channels=event.channels,
            on_end=self._streams.pop,
            on_left=self._server.left,
            on_shelved=self._server.recall,
            on_crash=self.scope.cancel,
        )
        self._streams[event.stream] = stream
        stream.pump()

    def _cancel(self, event: Cancel) -> None:
        number = event.stream
        if number in self._streams:
            if event.detach:
                self._streams[number].detach()
            else:
                self._streams[number].cancel()
        elif number in self._attaching:
            self._attaching[number] = self._attaching[number] or event
        elif not self._uploads.cancel(number):
            self._queries.cancel(number)

    # -- what the server calls ----------------------------------------------------------------

    def go_away(self, grace: float) -> None:
        """Tell the client that the server is about to stop."""
        if self.greeted and self._connection.state is ConnectionState.OPEN:
            self._replies.send(GoAway(grace, "the server is shutting down"))
            self._buffer.flush()

    def check_user(self) -> None:
        """The users may have changed: end the session if its token is no longer this user's."""
        if not self.greeted:
            return
        user = self._find_user()
        if user is not None and (user.name, user.admin) == (self.user.name, self.user.admin):
            self.user = user
            return
        self._log.warning("unauthorized", user=self.user.name)
        self._drop_streams()
        self._refuse(ErrorCode.UNAUTHORIZED, "the token is not valid any more")
        self._listening.cancel()

    def hand_back(self, error: RequestError) -> None:
        """The server stops now: end every request that is open."""
        for stream in tuple(self._streams.values()):
            stream.hand_back(error)
        for number in (*self._queries.open, *self._uploads.open):
            self._stop(number, error)
        self._buffer.flush()

    def _stop(self, number: int, error: RequestError) -> None:
        """End a request with an error; the generation that it reads continues."""
        if number in self._streams:
            self._streams[number].hand_back(error)
        else:
            self._replies.fail(number, error)
            self._queries.cancel(number)
            self._uploads.drop(number)

    def _pump_all(self) -> None:
        for stream in tuple(self._streams.values()):
            stream.pump()

    def _drop_streams(self) -> None:
        streams = tuple(self._streams.values())
        self._streams.clear()
        for stream in streams:
            stream.drop()
        self._queries.drop()


def _is_tls(stream: trio.abc.Stream) -> bool:
    return isinstance(stream, trio.SSLStream)


def _nobody() -> User | None:
    return None
