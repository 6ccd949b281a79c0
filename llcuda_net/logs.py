"""Structured logs on stderr: for people on a terminal, one JSON object a line elsewhere."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
