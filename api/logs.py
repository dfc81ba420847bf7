"""Where log lines go and how they look: standard error, one line each, for the command line, the server and the worker.

On a terminal they are for people, elsewhere they are JSON, one object a line. What documents put into them (names,
titles) can not break a line or steer a terminal. Knows no command and no route; called once, at start.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import structlog
from structlog.typing import EventDict, Processor

from rag.settings import Settings

#: Our own rooms, and the server's start and stop; other libraries are heard from warnings on.
_OURS = ("rag", "ingest", "eval", "api", "uvicorn.error")


def configure_logging(settings: Settings, *, default: str | None = None, tracebacks: Path | None = None) -> None:
    """Send log lines to standard error, from ``settings.log_level`` on.

    ``default`` takes the place of the setting's own default where nobody set it. With ``tracebacks``, trace-backs go
    to that file instead, and standard error only names the exception.
    """
    level = default if default and "log_level" not in settings.model_fields_set else settings.log_level
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(_formatter(terminal=sys.stderr.isatty(), brief=tracebacks is not None))
    handlers: list[logging.Handler] = [stderr]
    if tracebacks is not None:
        file = logging.FileHandler(tracebacks, encoding="utf-8", errors="backslashreplace", delay=True)
        file.setFormatter(_formatter(terminal=False, brief=False))
        file.addFilter(lambda record: _has_exception(record) and tracebacks.parent.is_dir())
        handlers.append(file)
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    logging.captureWarnings(capture=True)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _formatter(*, terminal: bool, brief: bool) -> logging.Formatter:
    renderer: Processor = structlog.processors.JSONRenderer()
    if terminal:
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    last: list[Processor] = [_brief_exception] if brief else [] if terminal else [structlog.processors.format_exc_info]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last, _visible, renderer],
    )


def _has_exception(record: logging.LogRecord) -> bool:
    """Say whether a record carries an exception: the standard library keeps it beside the message, structlog in it."""
    return bool(record.exc_info) or (isinstance(record.msg, dict) and bool(record.msg.get("exc_info")))


def _brief_exception(_: object, __: str, event: EventDict) -> EventDict:
    """Name the exception instead of showing where it came from."""
    given = event.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    if error is not None:
        event["error"] = f"{type(error).__name__}: {error}"
    return event


def _visible(_: object, __: str, event: EventDict) -> EventDict:
    """Make every control character of a value visible, but for the lines of a trace-back."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception" and not value.isprintable():
            event[key] = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    return event


_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.stdlib.PositionalArgumentsFormatter(),
]
