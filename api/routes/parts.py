"""What routes share: the running whole that the application was made with, and the errors that they document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, Path, Request

from api.answer_schemas import Query, SearchRequest
from api.schemas import ProblemReply
from rag.assembly import Citewell
from rag.queries import Message
from rag.records import Plan

MEANING = {
    400: "The request is not valid.",
    401: "A valid API key is needed: `Authorization: Bearer cw_...`.",
    403: "The key may not do that; or the request comes from another host or origin than it may.",
    404: "There is no such collection, document or batch.",
    409: "The name is taken.",
    413: "Too large, or beyond a quota.",
    415: "A type of file that Citewell does not read.",
    422: "A field is missing or of the wrong type.",
    429: "More is asked than can be answered, or than the key may; come again after the seconds in `Retry-After`.",
    500: "A setting is wrong, or Citewell itself is.",
    503: "A part of the service does not answer at present.",
}


async def citewell_of(request: Request) -> Citewell:  # async, or else each request would wait for a thread to do it
    """Return the whole that the application was made with, as the caller of this request sees it."""
    whole: Citewell = request.app.state.citewell
    return whole.seen_by(request.state.caller)


Whole = Annotated[Citewell, Depends(citewell_of)]
CollectionName = Annotated[str, Path(description="Name of the collection.", examples=["handbook"])]
DocumentId = Annotated[str, Path(description="Id of the document.", examples=["9b2f7c1d4e5a60718293a4b5c6d7e8f9"])]


def planned(citewell: Citewell, question: str, body: Query, history: Sequence[Message] | None = None) -> Plan:
    """Return the plan for a question as a request asks for it; raises what `Citewell.plan` raises.

    ``history`` stands for the conversation of the request. Only the settings let hidden text into answers.
    """
    return citewell.plan(
        question, body.collections, body.filters, body.top_k, parts=body.parts,
        diversity=body.diversity, around=body.around, section=body.section,
        history=said(body) if history is None else history,
        hidden=body.hidden if isinstance(body, SearchRequest) else None,
    )  # fmt: skip


def said(body: Query) -> list[Message]:
    """Return the conversation before the question of a request."""
    return [Message(message.role, message.content) for message in body.history]


def problems(*statuses: int, model: type[ProblemReply] = ProblemReply) -> dict[int | str, dict[str, Any]]:
    """Return the documented errors of a route. Every route may also refuse who asks, and ask to come again later."""
    documented = {status: MEANING[status] for status in {401, 403, 429, *statuses}}
    return {status: {"model": model, "description": text} for status, text in sorted(documented.items())}
