from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator

import pytest

from api.background import Tap, elsewhere, wait


async def where() -> tuple[int, str]:
    return id(asyncio.get_running_loop()), threading.current_thread().name


def test_sync_and_async_callers_share_one_loop():
    """From many threads and from other event loops, work runs on the same loop, in the same thread."""
    places = [wait(where())]

    async def others() -> None:
        places.extend(await asyncio.gather(elsewhere(where()), elsewhere(where())))
        places.append(await asyncio.to_thread(lambda: wait(where())))

    asyncio.run(others())
    assert {thread for _, thread in places} == {"citewell adapters"}
    assert len(set(places)) == 1


async def numbers(closed: threading.Event, failing: bool = False) -> AsyncGenerator[int, None]:
    try:
        for number in range(1, 4):
            yield number
        if failing:
            raise LookupError("no fourth")
    finally:
        closed.set()


def test_what_is_drawn_comes_in_order_to_both_kinds_of_code():
    """Once, to the end, and the generator is closed then."""
    closed = threading.Event()
    assert list(Tap(numbers(closed))) == [1, 2, 3]
    assert closed.wait(60)

    async def taken() -> list[int]:
        return [number async for number in Tap(numbers(threading.Event()))]

    assert asyncio.run(taken()) == [1, 2, 3]


def test_a_failure_comes_after_what_was_drawn():
    """Whoever takes gets the items before it, and then the error itself."""
    drawn = iter(Tap(numbers(threading.Event(), failing=True)))
    assert [next(drawn) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(LookupError, match="no fourth"):
        next(drawn)


def test_leaving_early_closes_the_generator():
    """Also one that is waiting for something that does not come."""
    closed = threading.Event()

    async def stuck() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.set()

    drawn = iter(Tap(stuck()))
    assert next(drawn) == 1
    drawn.close()
    assert closed.wait(60)


def test_a_cancelled_caller_cancels_its_work():
    """What nobody waits for any more is not done to its end."""
    begun, cancelled = threading.Event(), threading.Event()

    async def long() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def impatient() -> None:
        waiting = asyncio.ensure_future(elsewhere(long()))
        await asyncio.to_thread(begun.wait, 10)
        waiting.cancel()

    asyncio.run(impatient())
    assert cancelled.wait(60)
