"""Admission: so many at once, the others wait their turn for a while, and who waits too long is told to come again.

Past the number that a model server works on together, each further request slows down all of them; waiting here costs
nothing. First come, first served; who leaves the queue, or is cancelled, takes no turn from the others. Knows nothing
of what is done inside. For the thread of one event loop at a time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rag.errors import Busy

#: How far the time that places are held follows the last one.
_SMOOTHING = 0.2


class Admission:
    """``most`` places; who finds none waits up to ``seconds`` for one."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._queue: deque[asyncio.Future[None]] = deque()
        self._held_seconds = 0.0
        self.in_flight = 0

    @property
    def most(self) -> int:
        return self._most

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a place. Raises `Busy`, with the seconds after which to come again, if none is free in time."""
        await self._enter()
        started = time.monotonic()
        try:
            yield
        finally:
            self._held_seconds += _SMOOTHING * (time.monotonic() - started - self._held_seconds)
            self._leave()

    async def _enter(self) -> None:
        if self.in_flight < self._most:  # then nobody waits: a place that is given back goes to the first who does
            self.in_flight += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(self._seconds):
                await turn
        except TimeoutError:
            self._withdraw(turn)
            raise Busy(
                f"The language model is busy: no place was free within {self._seconds:g} s.", retry_after=self._wait()
            ) from None
        except BaseException:
            self._withdraw(turn)
            raise

    def _withdraw(self, turn: asyncio.Future[None]) -> None:
        if turn.done() and not turn.cancelled():  # the turn came in the same moment: it goes to the next
            self._leave()
        elif turn in self._queue:
            self._queue.remove(turn)

    def _leave(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.in_flight -= 1

    def _wait(self) -> int:
        """Return the whole seconds after which those who wait now will have had their turn."""
        return max(1, math.ceil(self._held_seconds * (len(self._queue) + 1) / self._most))
