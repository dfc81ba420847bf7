"""The numbers of all processes, for Prometheus to fetch."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from api.metrics import CONTENT_TYPE, numbers_of
from api.routes.parts import problems
from rag.assembly import Citewell

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses=problems(404, 503)
    | {200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """What all processes of this data folder have counted and measured, workers too: requests, stages, queue, support.

    Needs a key of an admin where there are keys, unless the setting `observe.open_metrics` says otherwise.
    """
    citewell: Citewell = request.app.state.citewell  # all of it, whoever asks
    page = await run_in_threadpool(numbers_of(citewell).page, citewell)
    return Response(page, media_type=CONTENT_TYPE)
