"""What one HTTP connection may take: of memory, and of time.

The size of bodies is a setting (`--max-body`), and so is the time for a head: it is a client's
greeting (`--handshake-timeout`).
"""

#: Bytes of a request line and its header fields, and how many fields there may be.
MAX_HEAD = 32 << 10
MAX_FIELDS = 100
#: Seconds that a connection without a request stays open.
KEEP_ALIVE = 75.0
#: A body must have come after BODY_GRACE seconds, and one more per BODY_RATE bytes.
BODY_GRACE = 30.0
BODY_RATE = 4 << 10
#: Bytes that a client may send before its answer has ended; they are thrown away.
MAX_EARLY = 256 << 10
#: Bytes read at once.
READ = 64 << 10
#: Seconds for the last bytes to leave, and for the client to close.
FAREWELL = 2.0
#: Bytes that a client may still send meanwhile. Most read no answer before all of a body has left:
#: closed too soon, they would not learn why it was refused.
MAX_IGNORED = 64 << 20
#: Characters of a client's x-request-id that is taken.
MAX_REQUEST_ID = 128
