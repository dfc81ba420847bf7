"""Ranking: passages that a client brings, by how well they answer its question, in NIM's shape.

The work is done in a thread; when a client leaves, it leaves the line.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.leaving import unless_gone
from api.model_names import reranker_of
from api.openai_schemas import OpenAIProblemReply, RankingReply, RankingRequest, RankingScore, RankingUsage
from api.routes.parts import Whole, problems
from rag.encodings import Ranked

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])


@router.post(
    "/ranking",
    summary="Rank passages",
    response_model=RankingReply,
    responses=problems(400, 404, 422, 429, 500, 503, model=OpenAIProblemReply),
)
async def rank(body: RankingRequest, request: Request, citewell: Whole) -> Response:
    """Returns the passages best first, each with its score by the reranker that searches use.

    That is the cross-encoder, where one is configured, else late interaction over the embedder's token vectors. Here
    the latter knows of no collection: every word of the question weighs the same, but for stop words.
    """
    _, reranker = reranker_of(citewell, body.model)
    passages = [passage.text for passage in body.passages]
    found = citewell.encodings.rank(body.query.text, passages, body.truncate, reranker, _written)
    written = await unless_gone(request.receive, asyncio.wrap_future(found))
    return Response(written, headers={"Content-Type": "application/json"})


def _written(ranked: Ranked) -> bytes:
    scores = ranked.scores
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    rankings = [RankingScore(index=place, logit=scores[place]) for place in order]
    usage = RankingUsage(prompt_tokens=ranked.tokens, total_tokens=ranked.tokens)
    return RankingReply(rankings=rankings, usage=usage).model_dump_json().encode()
