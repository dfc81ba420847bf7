"""Search: passages for a query, without an answer.

The searching is done in threads, for all who ask at the time together; when a client leaves, it leaves their line.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from api.answer_schemas import SearchReply, SearchRequest
from api.guard import Places
from api.leaving import unless_gone
from api.routes.parts import Whole, planned, problems, said
from rag.plan import choose_parts
from rag.records import Plan, Ranking

router = APIRouter(prefix="/v1", tags=["answers"])


@router.post(
    "/search", summary="Find passages", response_model=SearchReply, responses=problems(400, 404, 422, 429, 500, 503)
)
async def search(body: SearchRequest, request: Request, citewell: Whole) -> Response:
    """Returns the passages that match best, each with its place in the document and the scores of each stage.

    Where the language model is to make queries of the question first, that takes the place of an answer.
    """
    parts = choose_parts(citewell.store.settings, body.parts)
    with ExitStack() as held:
        if citewell.interpreter.is_concerned(body.query, said(body), parts):
            places: Places = request.app.state.answers
            held.enter_context(places.one())
            plan = await run_in_threadpool(planned, citewell, body.query, body)
            plan = await unless_gone(request.receive, citewell.interpreter.understand(plan))
            found = citewell.searches.submit(lambda: plan, _written)
        else:
            found = citewell.searches.submit(lambda: planned(citewell, body.query, body), _written)
        written = await unless_gone(request.receive, asyncio.wrap_future(found))
    return Response(written, headers={"Content-Type": "application/json"})


def _written(plan: Plan, ranking: Ranking) -> bytes:
    """Write the reply down in the thread that has searched, since a long one takes its time."""
    names = {collection.id: collection.name for collection in plan.collections}
    return SearchReply.of(ranking, names).model_dump_json().encode()
