"""Search: passages for a query, without an answer.

The searching is done in threads, for all who ask at the time together; when a client leaves, it leaves their line.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.leaving import unless_gone
from api.routes.parts import Whole, planned, problems
from api.schemas import SearchReply, SearchRequest
from rag.records import Plan, Ranking

router = APIRouter(prefix="/v1", tags=["answers"])


@router.post(
    "/search", summary="Find passages", response_model=SearchReply, responses=problems(400, 404, 422, 429, 500, 503)
)
async def search(body: SearchRequest, request: Request, citewell: Whole) -> Response:
    """Returns the passages that match best, each with its place in the document and the scores of each stage."""
    found = citewell.searches.submit(lambda: planned(citewell, body.query, body), _written)
    return Response(
        await unless_gone(request.receive, asyncio.wrap_future(found)), headers={"Content-Type": "application/json"}
    )


def _written(plan: Plan, ranking: Ranking) -> bytes:
    """Write the reply down in the thread that has searched, since a long one takes its time."""
    names = {collection.id: collection.name for collection in plan.collections}
    return SearchReply.of(ranking, names).model_dump_json().encode()
