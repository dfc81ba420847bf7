"""Where log lines go and how they look: standard error, one line each, for the command line, the server and the worker.

On a terminal they are for people, elsewhere they are JSON, one object a line, unless the settings say otherwise. What
documents put into them (names, titles) can not break a line or steer a terminal; what they must not hold is known in
`rag.log_lines`. Knows no command and no route; called once, at start.
"""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from structlog.typing import EventDict, Processor

from rag.access import SECRET
from rag.log_lines import IDS, with_described_error, with_named_error, without_secrets, without_text
from rag.settings import Settings, secrets_of

log = structlog.get_logger(__name__)

#: Our own rooms, and the server's start and stop; other libraries are heard from warnings on.
_OURS = ("rag", "ingest", "eval", "api", "uvicorn.error")


def configure_logging(settings: Settings, *, default: str | None = None, tracebacks: Path | None = None) -> None:
    """Send log lines to standard error, from ``settings.log_level`` on.

    ``default`` takes the place of the setting's own default where nobody set it. With ``tracebacks``, trace-backs go
    to that file instead, and standard error only names the exception.
    """
    level = default if default and "log_level" not in settings.model_fields_set else settings.log_level
    terminal = sys.stderr.isatty() if settings.log_format == "auto" else settings.log_format == "text"
    safe = [*([] if settings.log_texts else [without_text]), without_secrets(_secrets(settings), SECRET)]
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(_formatter(safe, terminal=terminal, brief=tracebacks is not None))
    stderr.addFilter(_is_heard)
    handlers: list[logging.Handler] = [stderr]
    if tracebacks is not None:
        file = logging.FileHandler(tracebacks, encoding="utf-8", errors="backslashreplace", delay=True)
        file.setFormatter(_formatter(safe, terminal=False, brief=False))
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


def log_ends_of_threads() -> None:
    """Log the error that a thread ends with, for a process that runs on; Python would print its message."""

    def tell(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit:
            log.error("a thread ended", thread=args.thread.name if args.thread else None, exc_info=args.exc_value)

    threading.excepthook = tell


def _secrets(settings: Settings) -> list[str]:
    """Return what no line may show: the secrets of the settings, and passwords inside of URLs."""
    found = secrets_of(settings)
    return found + [password for secret in found if "://" in secret and (password := urlsplit(secret).password)]


def _formatter(safe: list[Processor], *, terminal: bool, brief: bool) -> logging.Formatter:
    renderer: Processor = structlog.processors.JSONRenderer()
    if terminal:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    described = with_named_error if brief else with_described_error
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, described, *safe, _visible, renderer],
    )


def _is_heard(record: logging.LogRecord) -> bool:
    """Say whether a record is of ours, or at least a warning: libraries that were told to say more tell too much."""
    return record.levelno >= logging.WARNING or record.name.startswith(_OURS)


def _has_exception(record: logging.LogRecord) -> bool:
    """Say whether a record carries an exception: the standard library keeps it beside the message, structlog in it."""
    return bool(record.exc_info) or (isinstance(record.msg, dict) and bool(record.msg.get("exc_info")))


def _visible(_: object, __: str, event: EventDict) -> EventDict:
    """Make every control character of a value visible, but for the lines of a trace-back."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception" and not value.isprintable():
            event[key] = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    return event


_SHARED: list[Processor] = [
    *IDS,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.stdlib.PositionalArgumentsFormatter(),
]
