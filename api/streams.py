"""Answers that go out piece by piece: the response that ends with its client, and what a failure on the way becomes.

Once the headers have gone out there is no status any more: whatever goes wrong is told as the last event. Knows the
wire of no route, and no question.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from typing import Any

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.leaving import unless_gone
from api.problems import problem, problem_of, status_of
from rag.answers import Answer
from rag.errors import CitewellError
from rag.log_lines import describe

log = structlog.get_logger(__name__)


class EventStream(Response):
    """Server-sent events that end, generators and all, when they are through or when the client leaves.

    What is ``held`` for them is given back then.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], held: ExitStack | None = None) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._held = held or ExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - fixed by ASGI
        with self._held:
            await unless_gone(receive, self._write(send))

    async def _write(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def failure_of(error: Exception) -> tuple[int, dict[str, Any]]:
    """Return the status and the `problem` for what broke a stream off; what was not foreseen goes to the log."""
    if isinstance(error, CitewellError):
        return status_of(error), problem_of(error)
    error_id = secrets.token_hex(8)
    log.error("unexpected error", error_id=error_id, exception=describe(error))
    message = "Something went wrong inside Citewell; the log has the reason under the id in the details."
    return 500, problem("internal", message, {"error_id": error_id})


def log_answer(answer: Answer) -> None:
    """Write the line that every answer has in the log: nothing of what it says."""
    log.info(
        "answered",
        answer=answer.id,
        generator=answer.generator,
        abstained=answer.abstained,
        refused_by=answer.refused_by,
        citations=len(answer.citations),
        seconds=round(sum(answer.timings.values()), 4),
    )
