"""Every exception that llcuda_net raises on purpose.

Each message is one line that says what was wrong and what to do about it: command lines print it
as it is, and the protocol's error frames carry it.
"""

from __future__ import annotations


class LlcudaError(Exception):
    """Base of all errors raised by llcuda_net."""


class ConfigError(LlcudaError):
    """A setting, file or argument given by the user is wrong."""


class ListenError(LlcudaError):
    """The server cannot have its address."""


class EngineError(LlcudaError):
    """The built-in engine could not be started, or could not load its model."""


class RequestError(LlcudaError):
    """A request cannot be served.

    Attributes:
        code: an `llcuda_protocol.ErrorCode` value, one of a closed list.
        retry: whether the same request may succeed later.
        retry_after: seconds to wait before that, where known.
        durable: with the code `ahead`: how many pieces are the same on both sides.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retry: bool = False,
        retry_after: float | None = None,
        durable: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry = retry
        self.retry_after = retry_after
        self.durable = durable


class StorageError(LlcudaError):
    """What was asked cannot be stored, or what is stored cannot be read.

    Attributes:
        code: one of the class's constants.
        retry: whether the same may succeed later, without a restart.
    """

    #: The disk reported a failure; nothing more is accepted until a restart.
    FAILED = "storage_failed"
    #: There is no room on the disk; goes on by itself when there is.
    FULL = "storage_full"
    #: Another process kept the store from us for too long.
    BUSY = "storage_busy"
    #: Bytes that were read are not what was written.
    DAMAGED = "storage_damaged"
    #: The data directory is another server's, of a newer version, or cannot be used.
    REFUSED = "storage_refused"
    #: The argument cannot be stored or searched for.
    INVALID = "storage_invalid"

    def __init__(self, message: str, code: str = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retry = code in (self.FULL, self.BUSY)


class ConnectError(LlcudaError):
    """No usable connection to an llcuda-server could be made, or it was lost."""
