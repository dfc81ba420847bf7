"""Ask: a question in, an answer with checked citations out, whole or as server-sent events.

When the client leaves, the work for it ends: the generator's request is closed and nothing is written any more. Only an
answer that was asked for as resumable goes on for a while (`api.resuming`).
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from api.answer_events import AnswerEvents, Told
from api.answer_schemas import AnswerReply, AskRequest
from api.guard import Places
from api.leaving import unless_gone
from api.resuming import Telling
from api.routes.parts import Whole, planned, problems
from api.streams import EventStream, failure_of, log_answer
from rag.answers import Keeping, Wish
from rag.assembly import Citewell
from rag.errors import BadInput
from rag.pipeline import Done, Event, Passages
from rag.records import Plan

router = APIRouter(prefix="/v1", tags=["answers"])
#: The conversation of who wants a new one.
NEW = "new"

_EVENTS = """id: 1
event: passages
data: {"passages": [...], "timings": {"embed": 0.004}}

id: 2
event: token
data: {"text": "Hotels in the country are paid up to 145 euros a night. [1]"}

id: 3
event: citation
data: {"number": 1, "document": "2026/travel-policy.pdf", "quote": "...", "score": 1.0, ...}

id: 4
event: claim
data: {"text": "Hotels in the country ...", "support": 1.0, "supported": true, "citations": [0], ...}

id: 5
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

    With `stream`, events come as they happen: `passages`, then `token` for each piece of text; when a sentence is
    complete and judged, each `citation` of it and then the `claim` with its support; `restart` when text, citations and
    claims so far are to be forgotten because the generator failed and the built-in reader begins anew; and at the end
    `done` with the whole answer, in which the same claims stand. With the policy `filter` the text of a sentence comes
    behind its claim, with `strict` all comes at the end. An `error` event has the shape of all errors and is the last
    one. With `resumable` the ids of events are `ANSWER:NUMBER`, and a client that comes back reads on from
    `GET /v1/answers/ANSWER/events` with the last of them as `Last-Event-ID`.
    """
    places: Places = request.app.state.answers
    with ExitStack() as held:
        held.enter_context(places.one())
        plan, keeping = await run_in_threadpool(prepared, citewell, body)
        names = {collection.id: collection.name for collection in plan.collections}
        wish = Wish(policy=body.policy)
        if body.stream:
            events = citewell.stream(plan, wish, keeping)
            # What fails before anything went out gets a status of its own.
            first = await unless_gone(request.receive, anext(events))
            if body.resumable and isinstance(first, Passages):
                telling = Telling(citewell.store.catalog, first.answer_id, citewell.store.settings.answers)
                tellings: set[asyncio.Task[None]] = request.app.state.tellings
                task = telling.begin(_told(first, events, names), held.pop_all())
                tellings.add(task)
                task.add_done_callback(tellings.discard)
                return EventStream(telling.follow())
            return EventStream(_numbered(first, events, names), held.pop_all())
        answer = await unless_gone(request.receive, citewell.ask(plan, wish, keeping))
        log_answer(answer)
        return AnswerReply.of(answer, names)


def prepared(citewell: Citewell, body: AskRequest) -> tuple[Plan, Keeping]:
    """Return the plan for a question, after what was said before it, and what becomes of its answer.

    Raises `BadInput`, and `NotFound` for a collection.
    """
    if body.resumable and not body.stream:
        raise BadInput("resumable needs stream: only events can be read again.")
    if body.conversation is None:
        return planned(citewell, body.question, body), Keeping(body.store, body.cache, None, body.resumable)
    if body.history:
        raise BadInput("Give either a conversation or a history: a conversation has its own.")
    conversation = secrets.token_hex(16) if body.conversation == NEW else body.conversation
    plan = planned(citewell, body.question, body, citewell.answering.said(conversation))
    return plan, Keeping(body.store, body.cache, conversation, body.resumable)


async def _numbered(
    first: Event, rest: AsyncGenerator[Event, None], names: Mapping[str, str]
) -> AsyncGenerator[bytes, None]:
    """Yield what each event says in the wire's format with an id."""
    number = 0
    async with aclosing(_told(first, rest, names)) as events:
        async for told in events:
            number += 1
            yield _wire(number, *told)


async def _told(
    first: Event, rest: AsyncGenerator[Event, None], names: Mapping[str, str]
) -> AsyncGenerator[Told, None]:
    """Yield what each event says; a failure becomes the last event."""
    events = AnswerEvents(names)
    async with aclosing(rest):
        try:
            async for event in _all(first, rest):
                if isinstance(event, Done):
                    log_answer(event.answer)
                for told in events.tell(event):
                    yield told
        except Exception as error:  # noqa: BLE001 - the outermost edge of a stream: the headers have gone out
            yield "error", {"error": failure_of(error)[1]}


async def _all(first: Event, rest: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    yield first
    async for event in rest:
        yield event


def _wire(number: int, name: str, data: Mapping[str, Any]) -> bytes:
    """Write one event. JSON in ASCII has no line breaks, so that one ``data`` line holds it."""
    return f"id: {number}\nevent: {name}\ndata: {json.dumps(data, ensure_ascii=True)}\n\n".encode("ascii")
