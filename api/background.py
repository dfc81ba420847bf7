"""One event loop in a thread of its own, for code that has none or another one.

The parts of a Citewell belong to one event loop, while libraries that use it have a synchronous and an asynchronous
side: both wait here for work on the same loop. Knows nothing of what is awaited.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Background:
    """The loop, started when it is first needed; its thread ends with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        os.register_at_fork(after_in_child=self._forget)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="citewell adapters", daemon=True).start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _forget(self) -> None:
        """Start anew in a forked process, which has inherited the loop without its thread."""
        self._lock, self._loop = threading.Lock(), None


_background = _Background()


def wait(work: Coroutine[Any, Any, T]) -> T:
    """Return what comes of ``work``, or raise what it raises; call it from any thread but the loop's own.

    When the caller is interrupted, the work is cancelled.
    """
    done = _background.submit(work)
    try:
        return done.result()
    finally:
        done.cancel()


async def elsewhere(work: Coroutine[Any, Any, T]) -> T:
    """Return what comes of ``work``, awaited from another event loop; cancelled with its caller."""
    return await asyncio.wrap_future(_background.submit(work))


class Tap(Generic[T]):
    """What an asynchronous generator yields, drawn by one task on the loop; taken by sync or async code, once.

    What the generator raises, whoever takes from it raises. `close` ends the generator before its end.
    """

    def __init__(self, source: AsyncGenerator[T, None]) -> None:
        self._drawn: asyncio.Queue[T | Exception | None] = asyncio.Queue()
        self._drawing = _background.submit(self._draw(source))

    async def next(self) -> T | None:
        """Return the next item, None at the end; await it by `wait` or `elsewhere`."""
        item = await self._drawn.get()
        if isinstance(item, Exception):
            raise item
        return item

    def __iter__(self) -> Iterator[T]:
        try:
            while (item := wait(self.next())) is not None:
                yield item
        finally:
            self.close()

    async def __aiter__(self) -> AsyncIterator[T]:
        try:
            while (item := await elsewhere(self.next())) is not None:
                yield item
        finally:
            self.close()

    def close(self) -> None:
        """End the generator, if it has not ended."""
        self._drawing.cancel()

    async def _draw(self, source: AsyncGenerator[T, None]) -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    self._drawn.put_nowait(item)
        except Exception as error:  # noqa: BLE001 - whoever takes gets it
            self._drawn.put_nowait(error)
        finally:
            self._drawn.put_nowait(None)
