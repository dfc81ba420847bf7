"""Ask: a question in, an answer with checked citations out, whole or as server-sent events.

When the client leaves, the work for it ends: the generator's request is closed and nothing is written any more.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, aclosing
from typing import Any

import structlog
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.answer_schemas import AnswerReply, AskRequest, SearchReply
from api.guard import Places
from api.leaving import unless_gone
from api.problems import describe, problem, problem_of
from api.routes.parts import Whole, planned, problems
from rag.answers import Answer
from rag.errors import CitewellError
from rag.pipeline import Done, Event, Passages, Restart, Token

router = APIRouter(prefix="/v1", tags=["answers"])
log = structlog.get_logger(__name__)

_EVENTS = """id: 1
event: passages
data: {"passages": [...], "timings": {"embed": 0.004}}

id: 2
event: token
data: {"text": "Hotels in the country are paid up to 145 euros a night. [1]"}

id: 3
event: done
data: {"id": "...", "text": "...", "claims": [...], "citations": [...], ...}

"""


@router.post(
    "/ask",
    summary="Answer a question",
    response_model=AnswerReply,
    responses=problems(400, 404, 422, 429, 500, 503)
    | {200: {"description": "The answer.", "content": {"text/event-stream": {"example": _EVENTS}}}},
)
async def ask(body: AskRequest, request: Request, citewell: Whole) -> Response | AnswerReply:
    """Answers from the documents; every sentence carries citations that were found word for word at their places.

    With `stream`, events come as they happen: `passages`, then `token` for each piece of text, `restart` when the text
    so far is to be forgotten because the generator failed and the built-in reader begins anew, and at the end `done`
    with the whole answer. An `error` event has the shape of all errors and is the last one.
    """
    places: Places = request.app.state.answers
    with ExitStack() as held:
        held.enter_context(places.one())
        plan = await run_in_threadpool(planned, citewell, body.question, body)
        names = {collection.id: collection.name for collection in plan.collections}
        if body.stream:
            events = citewell.pipeline.stream(plan)
            # What fails before anything went out gets a status of its own.
            first = await unless_gone(request.receive, anext(events))
            return EventStream(_numbered(first, events, names), held.pop_all())
        answer = await unless_gone(request.receive, citewell.ask(plan))
        _log_answer(answer)
        return AnswerReply.of(answer, names)


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


async def _numbered(
    first: Event, rest: AsyncGenerator[Event, None], names: Mapping[str, str]
) -> AsyncGenerator[bytes, None]:
    """Yield each event in the wire's format with an id; a failure becomes the last event."""
    number = 1
    async with aclosing(rest):
        try:
            yield _wire(number, *_named(first, names))
            async for event in rest:
                number += 1
                yield _wire(number, *_named(event, names))
        except CitewellError as error:
            yield _wire(number + 1, "error", {"error": problem_of(error)})
        except Exception as error:  # noqa: BLE001 - the outermost edge of a stream: the headers have gone out
            error_id = secrets.token_hex(8)
            log.error("unexpected error", error_id=error_id, exception=describe(error))
            message = "Something went wrong inside Citewell; the log has the reason under the id in the details."
            yield _wire(number + 1, "error", {"error": problem("internal", message, {"error_id": error_id})})


def _named(event: Event, names: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """Return the name and the data of an event."""
    match event:
        case Passages(ranking):
            return "passages", SearchReply.of(ranking, names).model_dump(mode="json")
        case Token(text):
            return "token", {"text": text}
        case Restart(notice):
            return "restart", {"notice": notice}
        case Done(answer):
            _log_answer(answer)
            return "done", AnswerReply.of(answer, names).model_dump(mode="json")


def _wire(number: int, name: str, data: Mapping[str, Any]) -> bytes:
    """Write one event. JSON in ASCII has no line breaks, so that one ``data`` line holds it."""
    return f"id: {number}\nevent: {name}\ndata: {json.dumps(data, ensure_ascii=True)}\n\n".encode("ascii")


def _log_answer(answer: Answer) -> None:
    log.info(
        "answered",
        answer=answer.id,
        generator=answer.generator,
        abstained=answer.abstained,
        citations=len(answer.citations),
        seconds=round(sum(answer.timings.values()), 4),
    )
