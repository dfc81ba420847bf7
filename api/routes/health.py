"""Health: does the process run, and can it answer questions?"""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from api.routes.parts import Whole, problems
from api.schemas import LiveReply, LoadReply, ReadyReply
from rag.errors import GeneratorFailed, Unavailable
from rag.language_model import LanguageModel

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live", summary="The process runs", responses=problems())
async def live() -> LiveReply:
    """Answers as long as the process can answer at all. Restart it when this fails."""
    return LiveReply()


@router.get("/ready", summary="Questions can be answered", responses=problems(503))
async def ready(citewell: Whole) -> ReadyReply:
    """Checks the catalog, and the generator if it is a server.

    While the generator does not answer, the built-in reader stands in for it: the service is `degraded`, with status
    200. Status 503 means that questions can not be answered now.
    """
    catalog = citewell.store.catalog
    length = await run_in_threadpool(catalog.queue_length)  # not where answers are being read
    queue = length if catalog.caller.sees_all else None
    generator, fall_back = citewell.generator, citewell.pipeline.fall_back
    model = generator if isinstance(generator, LanguageModel) else None
    trouble = await _trouble(model) if model else None
    load = LoadReply(**asdict(model.load)) if model and catalog.caller.sees_all else None
    if trouble is None:
        return ReadyReply(status="ready", generator=generator.name, load=load, queue=queue)
    if fall_back is None:
        raise Unavailable(trouble)
    return ReadyReply(status="degraded", generator=fall_back.name, notice=trouble, load=load, queue=queue)


async def _trouble(generator: LanguageModel) -> str | None:
    try:
        return None if await generator.ready() else "The generator says itself that it is not ready yet."
    except GeneratorFailed as error:
        return error.message
