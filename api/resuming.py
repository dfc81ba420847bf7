"""Answers that go on without their client: each event is told to who listens, and kept for who comes back.

Events go to the catalog in small batches, so that any process of the server can hand them out. When the client leaves,
the answer goes on for a time of grace; after that it ends with an ``error`` event, as it does when the server stops.
Knows no question, and how events are written on the wire.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import ExitStack, aclosing, suppress
from typing import Any

import structlog

from api.problems import problem, problem_of
from rag.catalog import Catalog
from rag.errors import CitewellError
from rag.logged import DEAD_SECONDS, Told
from rag.settings import AnswerSettings

log = structlog.get_logger(__name__)

#: Seconds between two batches, and between two signs of life while there is nothing to keep.
BATCH_SECONDS, ALIVE_SECONDS = 0.1, 5.0
#: Seconds between two looks of who follows an answer from elsewhere.
LOOK_SECONDS = 0.1
#: How often a batch is tried while the catalog does not answer.
TRIES = 100
_BROKEN_OFF = problem("broken_off", "The answer ended: its client was away for too long, or the server was stopped.")
_GONE = problem("broken_off", "The process that wrote this answer has ended; ask again.")
#: What is told: names of events with their data.
Events = AsyncGenerator[tuple[str, Mapping[str, Any]], None]


def wire(answer_id: str, told: Told) -> bytes:
    """Write one event of a resumable answer; its data is JSON in ASCII, so that one ``data`` line holds it."""
    return f"id: {answer_id}:{told.number}\nevent: {told.name}\ndata: {told.data}\n\n".encode("ascii")


class Telling:
    """One answer whose events are kept. For the event loop that it was made on."""

    def __init__(self, catalog: Catalog, answer_id: str, settings: AnswerSettings) -> None:
        self._catalog = catalog
        self._answer_id = answer_id
        self._settings = settings
        self._told: list[Told] = []
        self._kept = 0
        self._over = asyncio.Event()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self, events: Events, held: ExitStack) -> asyncio.Task[None]:
        """Tell these events, by name and data, in a task of their own, and give back what is ``held`` at the end."""
        self._task = asyncio.create_task(self._run(events, held))
        return self._task

    async def follow(self) -> AsyncGenerator[bytes, None]:
        """Yield all events as they come, in the wire's format; who leaves before the last begins the time of grace."""
        sent = 0
        try:
            while True:
                self._changed.clear()
                for told in self._told[sent:]:
                    sent += 1
                    yield wire(self._answer_id, told)
                if self._over.is_set() and sent == len(self._told):
                    return
                await self._changed.wait()
        finally:
            asyncio.get_running_loop().call_later(self._settings.grace_seconds, self._break_off)

    def _break_off(self) -> None:
        if self._task is not None and not self._over.is_set():
            self._task.cancel()

    async def _run(self, events: Events, held: ExitStack) -> None:
        keeping = asyncio.create_task(self._keep_all())
        try:
            with held:
                async with aclosing(events):
                    async for name, data in events:
                        self._add(name, data)
        except asyncio.CancelledError:
            self._add("error", {"error": _BROKEN_OFF})
        finally:
            self._over.set()
            self._changed.set()
            await asyncio.shield(keeping)

    def _add(self, name: str, data: Mapping[str, Any]) -> None:
        self._told.append(Told(len(self._told) + 1, name, json.dumps(data, ensure_ascii=True)))
        self._changed.set()

    async def _keep_all(self) -> None:
        """Keep what comes until all is kept; give up where the answer was deleted, or where the catalog stays away."""
        kept_at, failures = -math.inf, 0
        while failures < TRIES and not (self._over.is_set() and self._kept == len(self._told)):
            new = self._told[self._kept :]
            if new or time.monotonic() - kept_at > ALIVE_SECONDS:
                try:
                    if not await asyncio.to_thread(self._catalog.add_events, self._answer_id, new):
                        return
                except CitewellError as error:
                    failures += 1
                    log.error("events not kept", answer=self._answer_id, reason=error.message)
                else:
                    self._kept, kept_at, failures = self._kept + len(new), time.monotonic(), 0
            if self._over.is_set():
                await asyncio.sleep(BATCH_SECONDS if failures else 0)
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), BATCH_SECONDS)


async def follow_kept(
    catalog: Catalog, answer_id: str, after: int, stopping: threading.Event
) -> AsyncGenerator[bytes, None]:
    """Yield the kept events of an answer behind number ``after``, and those to come until its end or the server's."""
    try:
        while not stopping.is_set():
            look = await asyncio.to_thread(catalog.events, answer_id, after)
            for told in look.events:
                after = told.number
                yield wire(answer_id, told)
            if look.over:
                return
            if look.silent > DEAD_SECONDS:
                yield _error(answer_id, after, _GONE)
                return
            await asyncio.sleep(LOOK_SECONDS)
    except CitewellError as error:  # the answer is deleted, or the catalog does not answer
        yield _error(answer_id, after, problem_of(error))


def _error(answer_id: str, after: int, what: Mapping[str, Any]) -> bytes:
    return wire(answer_id, Told(after + 1, "error", json.dumps({"error": what}, ensure_ascii=True)))


async def end_all(tellings: Collection[asyncio.Task[None]]) -> None:
    """Break off the answers that are still being told, and keep that they were."""
    left = list(tellings)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
