"""Search: passages for a query, without an answer."""

from __future__ import annotations

from fastapi import APIRouter

from api.routes.parts import Whole, problems
from api.schemas import SearchReply, SearchRequest

router = APIRouter(prefix="/v1", tags=["answers"])


@router.post("/search", summary="Find passages", responses=problems(400, 404, 422, 500))
def search(body: SearchRequest, citewell: Whole) -> SearchReply:
    """Returns the passages that match best, each with its place in the document and the scores of each stage."""
    plan = citewell.plan(body.query, body.collections, body.filters, body.top_k)
    return SearchReply.of(citewell.search(plan), {c.id: c.name for c in plan.collections})
