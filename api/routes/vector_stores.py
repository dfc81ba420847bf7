"""Vector stores: searches of one collection in OpenAI's shapes.

OpenAI's own clients put the address behind their base URL, which mostly ends in /v1: it is served under both.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from api.guard import Places
from api.leaving import unless_gone
from api.openai_schemas import OpenAIProblemReply
from api.routes.parts import CollectionName, Whole, problems
from api.vector_store_schemas import SearchResult, SearchResultsPage, VectorStoreSearchRequest, translated
from rag.assembly import Citewell
from rag.queries import Query, QueryRole, Understanding
from rag.records import Plan, Ranking

router = APIRouter(tags=["OpenAI-compatible"])
#: What is switched off for a query that is not to be rewritten, and for candidates that are not to be ranked again.
_REWRITING = ("rewrite", "decompose", "multi_query", "hyde")
_RANKING = ("late", "rerank", "hop")


@router.post("/v1/vector_stores/{collection}/search", include_in_schema=False)
@router.post(
    "/v2/vector_stores/{collection}/search",
    summary="Find passages as in a vector store",
    response_model=SearchResultsPage,
    responses=problems(400, 404, 422, 429, 500, 503, model=OpenAIProblemReply),
)
async def search_vector_store(
    collection: CollectionName, body: VectorStoreSearchRequest, request: Request, citewell: Whole
) -> Response:
    """Returns the passages of a collection that match best, as `POST /v1/search` does.

    Each result is one passage of a document. The address is served under `/v1` as well.
    """
    plan_of = partial(_planned, citewell, collection, body)
    reply = partial(_written, citewell, body.ranking_options.score_threshold)
    with ExitStack() as held:
        if body.rewrite_query and len(body.query) == 1:
            places: Places = (
                request.app.state.answers
            )  # where a language model writes, that takes the place of an answer
            held.enter_context(places.one())
            plan = await run_in_threadpool(plan_of)
            plan = await unless_gone(request.receive, citewell.interpreter.understand(plan))
            found = citewell.searches.submit(lambda: plan, reply)
        else:
            found = citewell.searches.submit(plan_of, reply)
        written = await unless_gone(request.receive, asyncio.wrap_future(found))
    return Response(written, headers={"Content-Type": "application/json"})


def _planned(citewell: Citewell, collection: str, body: VectorStoreSearchRequest) -> Plan:
    """Return the plan for all queries of a request; raises what `Citewell.plan` raises."""
    off = [] if body.rewrite_query else [*_REWRITING]
    if body.ranking_options.ranker == "none":
        off += _RANKING
    filters = translated(body.filters) if body.filters else None
    plans = [
        citewell.plan(query, [collection], filters, body.max_num_results, parts=dict.fromkeys(off, False))
        for query in body.query
    ]
    if len(plans) == 1:
        return plans[0]
    queries = tuple(
        Query(QueryRole.PART if place else QueryRole.QUESTION, plan.question) for place, plan in enumerate(plans)
    )
    return replace(plans[0], understanding=Understanding(queries))


def _written(citewell: Citewell, threshold: float, _: Plan, ranking: Ranking) -> bytes:
    """Write the reply down in the thread that has searched."""
    passages = [passage for passage in ranking.passages if passage.score >= threshold]
    versions = citewell.store.catalog.versions(list({passage.version_id for passage in passages}))
    metadata = {version.id: version.metadata for version in versions}
    data = [SearchResult.of(passage, metadata.get(passage.version_id, {})) for passage in passages]
    return (
        SearchResultsPage(search_query=[query.text for query in ranking.queries], data=data).model_dump_json().encode()
    )
