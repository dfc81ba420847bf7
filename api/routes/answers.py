"""Answers of the log: explained, followed while they are written, rated, removed.

The catalog is asked in threads, never on the event loop.
"""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import Response

from api.log_schemas import FeedbackReply, FeedbackRequest, HeadlineList, HeadlineReply, LoggedReply
from api.resuming import follow_kept
from api.routes.parts import Whole, problems
from api.streams import EventStream
from rag.errors import BadInput

router = APIRouter(prefix="/v1/answers", tags=["answers"])

AnswerId = Annotated[str, Path(description="Id of the answer.", examples=["3f1d0c9e8b7a46529c3d2e1f0a9b8c7d"])]
EVENT_ID = re.compile(r"(?:(?P<answer>[0-9a-f]{32}):)?(?P<number>[0-9]{1,9})")

_EVENTS = """id: 3f1d0c9e8b7a46529c3d2e1f0a9b8c7d:17
event: token
data: {"text": " a night. [1]"}

id: 3f1d0c9e8b7a46529c3d2e1f0a9b8c7d:18
event: done
data: {"id": "3f1d0c9e8b7a46529c3d2e1f0a9b8c7d", "text": "...", "claims": [...], ...}

"""


@router.get("", summary="List the last answers", responses=problems(404, 422, 503))
def list_answers(
    citewell: Whole,
    collection: Annotated[str | None, Query(description="Only those that looked in this collection.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Most answers on a page.")] = 20,
    before: Annotated[str | None, Query(description="The `next` of the page before.")] = None,
) -> HeadlineList:
    """Lists the answers of the log, the newest first."""
    catalog = citewell.store.catalog
    found_in = None if collection is None else catalog.collection(collection, counted=False).id
    found = catalog.list_answers(found_in, limit=limit + 1, before=before)
    more = found[limit - 1].id if len(found) > limit else None
    return HeadlineList(answers=[HeadlineReply.of(headline) for headline in found[:limit]], next=more)


@router.get("/{answer_id}", summary="Explain an answer", responses=problems(404, 422, 503))
def explain_answer(answer_id: AnswerId, citewell: Whole) -> LoggedReply:
    """Shows an answer with its plan, the candidates and scores of each stage, prompt, generator, timings, and where
    indexes and settings stood.

    It is in the log when the answer has come; while the catalog is busy with other writing, a moment later.
    """
    return LoggedReply.of(citewell.answering.answer(answer_id))


@router.delete("/{answer_id}", status_code=204, summary="Remove an answer", responses=problems(404, 422, 503))
def remove_answer(answer_id: AnswerId, citewell: Whole) -> None:
    """Removes an answer from the log, with all that was said of it, for good."""
    citewell.answering.answer(answer_id)
    citewell.store.catalog.delete_answer(answer_id)


@router.post("/{answer_id}/feedback", status_code=201, summary="Rate an answer", responses=problems(400, 404, 422, 503))
def rate_answer(answer_id: AnswerId, body: FeedbackRequest, citewell: Whole) -> FeedbackReply:
    """Keeps what somebody thinks of an answer, or of one of its claims, beside what was said of it before."""
    said = citewell.answering.rate(answer_id, body.score, body.claim, body.comment)
    return FeedbackReply.of(said)


@router.get(
    "/{answer_id}/events",
    summary="Follow a resumable answer",
    responses=problems(400, 404, 422, 503)
    | {200: {"description": "Events.", "content": {"text/event-stream": {"example": _EVENTS}}}},
    response_model=None,
)
async def follow_answer(
    answer_id: AnswerId,
    citewell: Whole,
    request: Request,
    last_event_id: Annotated[str | None, Header(description="Go on after the event with this id.")] = None,
    after: Annotated[int, Query(ge=0, le=2**31, description="Go on after the event with this number.")] = 0,
) -> Response:
    """Sends the events of an answer that was asked for with `resumable`: those of `POST /v1/ask` behind the last one
    that was received, and all that come until its end. They can be read for some minutes after that.

    An `error` event has the shape of all errors and is the last one.
    """
    number = after if last_event_id is None else _number(last_event_id, answer_id)
    catalog = citewell.store.catalog
    await asyncio.to_thread(catalog.events, answer_id, number)  # what is not there gets a status of its own
    stopping: threading.Event = request.app.state.stopping
    return EventStream(follow_kept(catalog, answer_id, number, stopping))


def _number(event_id: str, answer_id: str) -> int:
    """Return the number in the id of an event; raises `BadInput` for that of another answer."""
    found = EVENT_ID.fullmatch(event_id)
    if found is None or found["answer"] not in {None, answer_id}:
        raise BadInput("Last-Event-ID is not the id of an event of this answer, which is ANSWER:NUMBER.")
    return int(found["number"])
