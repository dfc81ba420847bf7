"""Batches: bulk uploads, how far they are, live or at a look, and the report of every file.

The catalog is asked in threads, never on the event loop. When a client that follows a batch leaves, the asking ends.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import Response, StreamingResponse

from api.batch_progress import Ended, Look, Watch, pace_of
from api.batch_report import MEDIA_TYPES, Format, report_of
from api.batch_schemas import BatchFilePage, BatchFileReply, BatchList, BatchProgress, BatchReply
from api.problems import problem_of
from api.routes.parts import CollectionName, Whole, problems
from api.streams import EventStream
from rag.catalog import Catalog
from rag.errors import CitewellError
from rag.records import Batch

router = APIRouter(prefix="/v1", tags=["batches"])

BatchId = Annotated[str, Path(description="Id of the batch.", examples=["3f1d0c9e8b7a46529c3d2e1f0a9b8c7d"])]
#: Seconds between two looks at a batch, and without any event before a comment keeps the connection alive.
LOOK_SECONDS, ALIVE_SECONDS = 1.0, 15.0
#: A look may take one part in so many of the time.
SHARE = 5

_EVENTS = """event: progress
data: {"id": "3f1d...", "files": 100, "ended": 97, "seconds_left": 4.0, "in_hand": [{"name": "a.pdf", ...}], ...}

id: 17
event: document
data: {"number": 17, "name": "2026/travel-policy.pdf", "outcome": "added", "state": "ready", "passages": 12, ...}

event: end
data: {"id": "3f1d...", "files": 100, "ended": 100, ...}

"""


@router.post("/collections/{collection}/batches", status_code=201, summary="Open a batch", responses=problems(404, 422))
def open_batch(collection: CollectionName, citewell: Whole) -> BatchReply:
    """Opens an empty batch, to which uploads add their files with `?batch=`: any number, in any number of requests."""
    catalog = citewell.store.catalog
    found = catalog.collection(collection, counted=False)
    return _reply(catalog, catalog.batch(catalog.open_batch(found.id)), found.name)


@router.get("/collections/{collection}/batches", summary="List the last batches", responses=problems(404, 422))
def list_batches(
    collection: CollectionName,
    citewell: Whole,
    limit: Annotated[int, Query(ge=1, le=100, description="Most batches.")] = 20,
) -> BatchList:
    """Lists the last batches of a collection, the newest first."""
    catalog = citewell.store.catalog
    found = catalog.collection(collection, counted=False)
    return BatchList(batches=[_reply(catalog, batch, found.name) for batch in catalog.list_batches(found.id, limit)])


@router.get("/batches/{batch_id}", summary="Show a batch", responses=problems(404, 422))
def show_batch(batch_id: BatchId, citewell: Whole) -> BatchReply:
    """Shows how far a batch is: files by state, bytes, pace and time left."""
    catalog = citewell.store.catalog
    batch = catalog.batch(batch_id)
    return _reply(catalog, batch, catalog.collection_name(batch.collection_id))


@router.get("/batches/{batch_id}/files", summary="List the files of a batch", responses=problems(404, 422))
def list_batch_files(
    batch_id: BatchId,
    citewell: Whole,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most files on a page.")] = 100,
    after: Annotated[int, Query(ge=-1, le=2**31, description="The `next` of the page before.")] = -1,
) -> BatchFilePage:
    """Lists the files of a batch in the order in which they came, also those that were refused."""
    catalog = citewell.store.catalog
    batch = catalog.batch(batch_id)
    found = catalog.batch_files(batch_id, after=after, limit=limit + 1)
    more = found[limit - 1].number if len(found) > limit else None
    return BatchFilePage(files=[BatchFileReply.of(file, batch) for file in found[:limit]], next=more)


@router.get(
    "/batches/{batch_id}/report",
    summary="Fetch the report of a batch",
    responses=problems(404, 422)
    | {200: {"description": "Every file.", "content": {"text/csv": {}, "application/json": {}}}},
    response_class=StreamingResponse,
)
def fetch_report(
    batch_id: BatchId,
    citewell: Whole,
    form: Annotated[Format, Query(alias="format", description="How it is written.")] = "json",
) -> StreamingResponse:
    """Hands out every file of a batch with its outcome, as CSV for a spreadsheet or as JSON.

    In CSV a cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    catalog = citewell.store.catalog
    batch = catalog.batch(batch_id)
    headers = {"Content-Disposition": f'attachment; filename="batch-{batch.id}.{form}"'}
    return StreamingResponse(report_of(catalog, batch, form), headers=headers, media_type=MEDIA_TYPES[form])


@router.get(
    "/batches/{batch_id}/events",
    summary="Follow a batch",
    responses=problems(404, 422)
    | {200: {"description": "Events.", "content": {"text/event-stream": {"example": _EVENTS}}}},
    response_model=None,
)
async def follow_batch(
    batch_id: BatchId,
    citewell: Whole,
    request: Request,
    last_event_id: Annotated[int, Header(ge=-1, le=2**31, description="Go on after this event.")] = -1,
) -> Response:
    """Sends server-sent events until every file has ended: `progress` each second while something changes, `document`
    for each file that ends, and `end`.

    The id of an event is the number of the file up to which all have been told of. A client that comes back with it as
    `Last-Event-ID` misses nothing; a file after it that ended out of its turn may be told of again. An `error` event
    has the shape of all errors and is the last one.
    """
    catalog = citewell.store.catalog
    batch = await asyncio.to_thread(catalog.batch, batch_id)  # what is not there gets a status of its own
    name = await asyncio.to_thread(catalog.collection_name, batch.collection_id)
    stopping: threading.Event = request.app.state.stopping
    return EventStream(_events(Watch(catalog, batch_id, last_event_id + 1), name, stopping))


async def _events(watch: Watch, collection: str, stopping: threading.Event) -> AsyncGenerator[bytes, None]:
    """Yield the events of a batch in the wire's format until it has ended, or the server ends."""
    shown: object = None
    sent_at = time.monotonic()
    try:
        while not stopping.is_set():
            started = time.monotonic()
            look = await asyncio.to_thread(watch.look)
            if events := _wire_all(look, collection, shown):
                yield events
                shown, sent_at = _changing(look), time.monotonic()
            elif time.monotonic() - sent_at > ALIVE_SECONDS:
                yield b": still here\n\n"
                sent_at = time.monotonic()
            if look.is_over:
                yield _wire("end", BatchProgress.seen(look, collection).model_dump(mode="json"))
                return
            if not look.more:
                await asyncio.sleep(max(LOOK_SECONDS, SHARE * (time.monotonic() - started)))
    except CitewellError as error:
        yield _wire("error", {"error": problem_of(error)})


def _changing(look: Look) -> object:
    return look.batch, look.in_hand


def _wire_all(look: Look, collection: str, shown: object) -> bytes:
    events = [_wire_file(ended, look.batch) for ended in look.ended]
    if _changing(look) != shown:
        events.append(_wire("progress", BatchProgress.seen(look, collection).model_dump(mode="json")))
    return b"".join(events)


def _wire_file(ended: Ended, batch: Batch) -> bytes:
    reply = BatchFileReply.of(ended.file, batch).model_dump(mode="json", exclude_none=True)
    return f"id: {ended.all_up_to}\n".encode() + _wire("document", reply)


def _wire(name: str, data: Mapping[str, Any]) -> bytes:
    """Write one event. JSON in ASCII has no line breaks, so that one ``data`` line holds it."""
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=True)}\n\n".encode("ascii")


def _reply(catalog: Catalog, batch: Batch, collection: str) -> BatchReply:
    return BatchReply.of(batch, collection, pace_of(catalog, batch))
