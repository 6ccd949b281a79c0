"""The llcuda wire protocol, without I/O: bytes in, events out, and back.

SPEC.md, beside this package, specifies the protocol. `Connection` is the whole interface:

    connection = Connection(Role.CLIENT)
    to_send = connection.send(Hello(versions=[1], max_frame=1 << 20, max_streams=16))
    connection.receive_data(received)
    while (event := connection.next_event()) is not None:
        if isinstance(event, ConnectionClosed):  # the last event; every later call returns it
            break
        ...
"""

from .connection import Connection
from .errors import (
    ErrorCode,
    FrameTooLargeError,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
)
from .events import (
    Accepted,
    Attach,
    Cancel,
    Channel,
    ConnectionClosed,
    Credit,
    Delete,
    Deleted,
    Done,
    Durable,
    Embed,
    Error,
    Event,
    Facts,
    Frame,
    Generate,
    GoAway,
    Hello,
    Hits,
    Invalid,
    ListGenerations,
    Listing,
    Ping,
    Pong,
    Queue,
    Report,
    Search,
    Splice,
    Status,
    TokenLogprob,
    Tokens,
    TopToken,
    Upload,
    Vectors,
    Welcome,
)
from .kinds import PREFACE, VERSIONS, Kind, Limits, Role
from .states import ConnectionState, StreamState

__all__ = [
    "PREFACE",
    "VERSIONS",
    "Accepted",
    "Attach",
    "Cancel",
    "Channel",
    "Connection",
    "ConnectionClosed",
    "ConnectionState",
    "Credit",
    "Delete",
    "Deleted",
    "Done",
    "Durable",
    "Embed",
    "Error",
    "ErrorCode",
    "Event",
    "Facts",
    "Frame",
    "FrameTooLargeError",
    "Generate",
    "GoAway",
    "Hello",
    "Hits",
    "Invalid",
    "Kind",
    "Limits",
    "ListGenerations",
    "Listing",
    "LocalProtocolError",
    "Ping",
    "Pong",
    "ProtocolError",
    "Queue",
    "RemoteProtocolError",
    "Report",
    "Role",
    "Search",
    "Splice",
    "Status",
    "StreamState",
    "TokenLogprob",
    "Tokens",
    "TopToken",
    "Upload",
    "Vectors",
    "Welcome",
]
