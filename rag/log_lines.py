"""What log lines may hold: ids of the work that they are about, and no text of documents or questions, nor a secret.

An error is told by its kind and its place. Its message may quote what was read or asked, a trace-back that shows the
values of variables does so for certain: neither goes into a line. What a line has to say of a text it says under the
name ``text``, of which the length remains. Knows processors of structlog, and neither where lines go nor how they look.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

#: What the ids are bound to that become known while a request is worked on.
_NOTED = "noted"
#: Shorter ones would hide words that only look like them.
_SECRET_CHARS = 6


@contextmanager
def noting(**ids: str) -> Iterator[None]:
    """Give every log line of the body these ids, and those that are noted in it later, in whichever of its tasks."""
    with structlog.contextvars.bound_contextvars(**ids, **{_NOTED: {}}):
        yield


def note(**ids: str) -> None:
    """Give the lines of the request that is being worked on these ids from now on."""
    noted = structlog.contextvars.get_contextvars().get(_NOTED)
    if noted is not None:
        noted.update(ids)


def note_place(place: str | None) -> None:
    """Give them the id of the trace whose ``traceparent`` this is, if there is one."""
    if place is not None:
        note(trace_id=place.split("-")[1])


def merge_noted(_: object, __: str, event: EventDict) -> EventDict:
    """Put what was noted into a line: a processor, for behind structlog's ``merge_contextvars``."""
    noted = event.pop(_NOTED, None)
    return {**noted, **event} if noted else event


def without_text(_: object, __: str, event: EventDict) -> EventDict:
    """Leave the length of what a line calls ``text``: a processor."""
    if isinstance(text := event.get("text"), str):
        event["text"] = f"({len(text):,} characters)"
    return event


def with_described_error(_: object, __: str, event: EventDict) -> EventDict:
    """Tell an error as `describe` does, under ``exception``: a processor."""
    if (error := error_of(event)) is not None:
        event["exception"] = describe(error)
    return event


def with_named_error(_: object, __: str, event: EventDict) -> EventDict:
    """Tell the kind of an error and its place in a few words, under ``error``: a processor."""
    if (error := error_of(event)) is not None:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        event["error"] = f"{type(error).__qualname__}{place}"
    return event


def error_of(event: EventDict) -> BaseException | None:
    """Take the error out of a line that was logged with one."""
    given = event.pop("exc_info", None)
    found = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    return found if isinstance(found, BaseException) else None


def describe(error: BaseException) -> str:
    """Return what kind of error it was and where, causes first; never a message, which may quote a document."""
    lines: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        told = ["Traceback (most recent call last):", *traceback.format_tb(seen.__traceback__)]
        told.append(type(seen).__qualname__)
        if isinstance(seen, BaseExceptionGroup):
            told += [describe(inner) for inner in seen.exceptions]
        lines = [*told, *lines]
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "\n".join(line.rstrip() for line in lines)


def without_secrets(secrets: Sequence[str], *looks: re.Pattern[str]) -> Processor:
    """Return a processor that makes ``***`` of these, and of what looks so, wherever they stand in a value."""
    hidden = sorted({secret for secret in secrets if len(secret) >= _SECRET_CHARS}, key=len, reverse=True)

    def hide(_: object, __: str, event: EventDict) -> EventDict:
        for key, value in event.items():
            if isinstance(value, str):
                event[key] = _hidden(value, hidden, looks)
        return event

    return hide


def _hidden(value: str, secrets: Sequence[str], looks: Sequence[re.Pattern[str]]) -> str:
    for secret in secrets:
        value = value.replace(secret, "***")
    for look in looks:
        value = look.sub("***", value)
    return value


#: What every line goes through first, whoever writes it.
IDS: tuple[Processor, ...] = (structlog.contextvars.merge_contextvars, merge_noted)


def _as_words(logger: object, name: str, event: EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """Return what a logger of the standard library is called with: it shall not look for the error by itself."""
    words = structlog.processors.KeyValueRenderer(key_order=["event"])(logger, name, event)
    return (words,), {"exc_info": False}


def keep_lines_safe() -> None:
    """Send log lines to the standard library's loggers, made safe, unless somebody has said where they go.

    For programs that use Citewell as a library: structlog by itself would print them, with the values of all variables
    behind an error.
    """
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *IDS,
            without_text,
            structlog.stdlib.add_log_level,
            with_described_error,
            _as_words,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
