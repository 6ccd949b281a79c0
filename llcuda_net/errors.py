"""Every exception that llcuda_net raises on purpose.

Each message is one line that says what was wrong and what to do about it: command lines print it
as it is, and the protocol's error frames carry it.
"""

from __future__ import annotations


class LlcudaError(Exception):
    """Base of all errors raised by llcuda_net."""


class ConfigError(LlcudaError):
    """A setting, file or argument given by the user is wrong."""


class MissingExtra(ConfigError):
    """What was asked needs an extra of llcuda-net that is not installed: the text names it."""


class ListenError(LlcudaError):
    """The server cannot have its address."""


class EngineError(LlcudaError):
    """The built-in engine could not be started, or could not load its model."""


class PullError(LlcudaError):
    """A model could not be pulled: its source, the network, the disk or its bytes were wrong."""


class RequestError(LlcudaError):
    """A request cannot be served. Base of one class per code of the protocol's closed list.

    Attributes:
        code: an `llcuda_protocol.ErrorCode` value.
        retry: whether the same request may succeed later.
        retry_after: seconds to wait before that, where known.
        durable: with the code `ahead`: how many pieces are the same on both sides.
    """

    code = "internal"

    def __init__(
        self,
        message: str,
        *,
        retry: bool = False,
        retry_after: float | None = None,
        durable: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry = retry
        self.retry_after = retry_after
        self.durable = durable

    def __repr__(self) -> str:
        later = f", retry_after={self.retry_after}" if self.retry_after is not None else ""
        return f"<{type(self).__name__} {self.code} retry={self.retry}{later}: {self.message}>"


class ConnectionRejected(RequestError):
    """The other side ended the connection: by its rules, or since the protocol was broken."""


class Unauthorized(ConnectionRejected):
    """The token is missing or unknown."""


class InvalidRequest(RequestError):
    """The request, or one of its values, is wrong."""


class UnknownParameter(InvalidRequest):
    """There is no sampling parameter of this name."""


class KeyConflict(InvalidRequest):
    """The idempotency key belongs to another request."""


class ContextExceeded(InvalidRequest):
    """The prompt does not fit the context of a slot."""


class FrameTooLarge(InvalidRequest):
    """The request, or the reply to it, is larger than a frame that the other side takes."""


class NotFound(RequestError):
    """What the request names does not exist, or belongs to somebody else."""


class UnknownGeneration(NotFound):
    """There is no generation with this id."""


class UnknownModel(NotFound):
    """No upstream serves a model of this name."""


class Ahead(RequestError):
    """The reader has more tokens than the server still has, after a power cut."""


class Unsupported(RequestError):
    """The server, or the upstream, cannot do this."""


class UpstreamLacks(Unsupported):
    """This upstream cannot do it, as it was built or started; another one may."""


class Overloaded(RequestError):
    """The queue, or the user's part of it, is full."""


class RequestTimeout(RequestError):
    """The request took longer than its deadline or the server's limit."""


class UpstreamError(RequestError):
    """The upstream failed at this request."""


class UpstreamUnavailable(UpstreamError):
    """The upstream cannot be reached, or the connection to it was lost."""


class UpstreamNotReady(UpstreamUnavailable):
    """The upstream answered that it takes no work now; the request is not at fault."""


class UpstreamBusy(UpstreamNotReady):
    """The same, of one that works: ask again after `retry_after`, where it named a time."""


class UpstreamStalled(UpstreamError):
    """The upstream sent nothing for too long."""


class Damaged(RequestError):
    """What is stored of the generation is not what was written."""


class StorageUnavailable(RequestError):
    """What the request needs to keep cannot be kept."""


class Interrupted(RequestError):
    """The generation ended before its time and cannot be continued."""


class ShuttingDown(RequestError):
    """The server drains and takes nothing new."""


class LeaseLost(RequestError):
    """The server was not heard by its cluster for too long: another one may have what it had."""


class InternalError(RequestError):
    """A bug in the server."""


#: Every code of the protocol, and its class.
REQUEST_ERRORS: dict[str, type[RequestError]] = {
    "bad_preface": ConnectionRejected,
    "unsupported_version": ConnectionRejected,
    "unauthorized": Unauthorized,
    "handshake_timeout": ConnectionRejected,
    "frame_too_large": FrameTooLarge,
    "malformed_frame": ConnectionRejected,
    "truncated_frame": ConnectionRejected,
    "unknown_kind": ConnectionRejected,
    "unexpected_frame": ConnectionRejected,
    "flow_control": ConnectionRejected,
    "too_many_streams": ConnectionRejected,
    "too_many_connections": ConnectionRejected,
    "invalid_request": InvalidRequest,
    "unknown_parameter": UnknownParameter,
    "unknown_generation": UnknownGeneration,
    "unknown_model": UnknownModel,
    "key_conflict": KeyConflict,
    "ahead": Ahead,
    "context_exceeded": ContextExceeded,
    "unsupported": Unsupported,
    "overloaded": Overloaded,
    "timeout": RequestTimeout,
    "upstream_unavailable": UpstreamUnavailable,
    "upstream_error": UpstreamError,
    "upstream_stalled": UpstreamStalled,
    "storage": StorageUnavailable,
    "damaged": Damaged,
    "interrupted": Interrupted,
    "shutting_down": ShuttingDown,
    "lease_lost": LeaseLost,
    "internal": InternalError,
}
for _code, _class in REQUEST_ERRORS.items():
    if _class is not ConnectionRejected:
        _class.code = _code


def request_error(
    code: str,
    message: str,
    *,
    retry: bool = False,
    retry_after: float | None = None,
    durable: int | None = None,
) -> RequestError:
    """The error of a code; one that is not in the list, of a newer server, keeps its code."""
    kind = REQUEST_ERRORS.get(code, RequestError)
    error = kind(message, retry=retry, retry_after=retry_after, durable=durable)
    error.code = code
    return error


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
    #: Others of the cluster have taken over: this life of the server writes nothing more.
    FENCED = "storage_fenced"
    #: The argument cannot be stored or searched for.
    INVALID = "storage_invalid"

    def __init__(self, message: str, code: str = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retry = code in (self.FULL, self.BUSY)


class ResultDamaged(StorageError):
    """A result is not what was stored.

    Attributes:
        result: its id, as far as that is known.
        why: what is wrong with it.
    """

    def __init__(self, result: str, why: str) -> None:
        super().__init__(
            f"the result {result} is damaged ({why}): `llcuda results verify` names all that is "
            "damaged; only a backup of the data directory still has it",
            self.DAMAGED,
        )
        self.result = result
        self.why = why


class NewerFormat(StorageError):
    """A file is of a version that this program does not know.

    Args:
        place: the file, the folder or the database.
        found, known: its version, and the last one that this program reads.
        wrote: what wrote it.
        ours: this program's version; empty: not told.
        otherwise: what else can be done than to upgrade.
    """

    def __init__(
        self,
        place: str,
        found: object,
        known: object,
        *,
        wrote: str = "a newer llcuda",
        ours: str = "",
        otherwise: str = "",
    ) -> None:
        this = f" (this is {ours})" if ours else ""
        super().__init__(
            f"{place} has version {found}, this llcuda knows up to {known}: {wrote} wrote it; "
            f"upgrade llcuda{this}{otherwise and f', or {otherwise}'}. Nothing was changed",
            self.REFUSED,
        )


class OutcomeUnknown(StorageError):
    """A generation failed, and not even that could be recorded: a restart may continue it."""


class ConnectError(LlcudaError):
    """No usable connection to an llcuda-server could be made, or it was lost."""
