"""Structured logs on stderr: for people on a terminal, one JSON object per line elsewhere."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO, cast

if not {"rich", "structlog"} & sys.modules.keys():
    # structlog imports rich where it is installed, for tracebacks that are not used here: a quarter
    # of the time in which a server starts.
    sys.modules["rich"] = None  # type: ignore[assignment]  # None: what Python does not import
    try:
        import structlog
    finally:
        del sys.modules["rich"]
else:
    import structlog

from llcuda_net.util.terminal import (
    harmless,
    is_clever,
    is_terminal,
    one_line,
    status_line,
    wants_colour,
)
from llcuda_protocol import ErrorCode

_progress_shown = False
_CODES = frozenset(str(code) for code in ErrorCode)
#: Codes of errors whose messages are our own words about our own state.
_OUR_WORDS = frozenset(
    {
        ErrorCode.OVERLOADED,
        ErrorCode.TIMEOUT,
        ErrorCode.UPSTREAM_UNAVAILABLE,
        ErrorCode.UPSTREAM_STALLED,
        ErrorCode.STORAGE,
        ErrorCode.INTERRUPTED,
        ErrorCode.SHUTTING_DOWN,
        ErrorCode.LEASE_LOST,
        ErrorCode.INTERNAL,
        ErrorCode.HANDSHAKE_TIMEOUT,
        ErrorCode.FRAME_TOO_LARGE,
        ErrorCode.TRUNCATED_FRAME,
        ErrorCode.UNKNOWN_KIND,
        ErrorCode.FLOW_CONTROL,
        ErrorCode.TOO_MANY_STREAMS,
        ErrorCode.TOO_MANY_CONNECTIONS,
    }
)


def configure(level: str, style: str = "auto") -> None:
    """Set up structlog, once, at the start of a process.

    Args:
        level: debug, info, warning or error.
        style: human, json, or auto.
    """
    human = style == "human" or (style == "auto" and is_terminal(sys.stderr))
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if human else "iso", utc=not human),
        structlog.processors.format_exc_info,
    ]
    if human:
        # The plain formatter: traces stay short and need no further package.
        renderer = structlog.dev.ConsoleRenderer(
            colors=wants_colour(sys.stderr), exception_formatter=structlog.dev.plain_traceback
        )
        processors += [_harmless_values, renderer]
    else:
        processors += [structlog.processors.JSONRenderer(), _harmless_line]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Unbreakable(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    # What libraries say (trio, when no descriptor is left for accept) looks like our own.
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward()], force=True)
    logging.captureWarnings(True)


def name_process(number: int) -> None:
    """Have each line of the log say of which of several processes it is."""
    structlog.contextvars.bind_contextvars(process=number)


def progress(text: str) -> None:
    """Show progress on a terminal; an empty text, and any log line, erases it."""
    global _progress_shown
    if is_clever(sys.stderr) and (text or _progress_shown):
        with contextlib.suppress(OSError, ValueError):
            status_line(text, sys.stderr)
        _progress_shown = bool(text)


def _harmless_values(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    """What came from elsewhere commands no terminal; the renderer's own colours come after this."""
    for name, value in event.items():
        if name == "exception":
            event[name] = harmless(str(value))
        elif not isinstance(value, int | float | None):
            event[name] = one_line(value if isinstance(value, str) else repr(value))
    return event


def _harmless_line(_: Any, __: str, line: str) -> str:
    """JSON leaves DEL as it is."""
    return harmless(line)


def reason_of(code: str, message: str) -> str:
    """What the log says of a request's error: its message, or only its code.

    A message may quote what a client sent (a key, a parameter, a part of a prompt), and so may the
    words of an upstream; none of that may be in a log.
    """
    return message if code in _OUR_WORDS else code_of(code)


def code_of(code: str) -> str:
    """A code of the closed list; "other" for what somebody made up."""
    return str(code) if code in _CODES else "other"


class _Unbreakable(io.TextIOBase):
    """Stderr, except that it never fails, if nobody reads it any more or it is closed."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file  # None where it was closed from the start

    def write(self, text: str) -> int:
        """Write, or else do nothing."""
        progress("")
        self._try(lambda file: file.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, or else do nothing."""
        self._try(lambda file: file.flush())

    def _try(self, action: Callable[[TextIO], object]) -> None:
        if self._file is None:
            return
        try:
            action(self._file)
        except (OSError, ValueError):
            # What is left in the buffer would fail again at exit, and change the exit code.
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._file.fileno())
                os.close(null)


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger(record.name)
        logger.log(record.levelno, "library", logger=record.name, message=record.getMessage())
