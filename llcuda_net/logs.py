"""Structured logs on stderr: for people on a terminal, one JSON object a line elsewhere."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from typing import Any, TextIO, cast

import structlog


def configure(level: str, style: str = "auto") -> None:
    """Set up structlog, once, at the start of a process.

    Args:
        level: debug, info, warning or error.
        style: human, json, or auto.
    """
    terminal = sys.stderr.isatty()
    human = style == "human" or (style == "auto" and terminal)
    colors = terminal and not os.environ.get("NO_COLOR")
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if human else "iso", utc=not human),
    ]
    if human:
        # The plain formatter: traces stay short and need no further package.
        renderer = structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback
        )
        processors.append(renderer)
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Unbreakable(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    # What libraries say (trio, when no descriptor is left for accept) looks like our own.
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward()], force=True)


class _Unbreakable(io.TextIOBase):
    """Stderr, except that nobody reading it any more is no reason to fail."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write, or else do nothing."""
        with contextlib.suppress(OSError, ValueError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or else do nothing."""
        with contextlib.suppress(OSError, ValueError):
            self._file.flush()


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger(record.name)
        logger.log(record.levelno, "library", logger=record.name, message=record.getMessage())
