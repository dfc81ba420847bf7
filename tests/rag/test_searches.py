"""Searches of many callers at once: each finds what it would find alone, and nothing is done for one that has left."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import closing

import pytest

from rag.assembly import Citewell
from rag.batching import BatchingEmbedder
from rag.errors import BadInput, NotFound, Unavailable
from rag.records import Plan
from rag.searches import Searches
from rag.settings import ServerSettings
from tests.gate import PATIENCE, Gate, gated


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def words(settings, gate):
    """A Citewell with a collection of small passages, one searching thread, and the gate before its embedder."""
    server = ServerSettings(search_threads=1, search_batch=4)
    with gated(settings.model_copy(update={"server": server}), gate) as opened:
        yield opened


def search(citewell: Citewell, question: str, collection: str = "c") -> Future[list[tuple[str, float]]]:
    return citewell.searches.submit(
        lambda: citewell.plan(question, [collection]),
        lambda _, ranking: [(passage.chunk_id, passage.score) for passage in ranking.passages],
    )


def test_each_caller_finds_what_it_would_find_alone(words, gate):
    """Forty questions that gather: ten calls, and the same passages with the same scores as one by one."""
    first = search(words, "animal0")
    assert gate.entered.wait(PATIENCE)
    questions = [f"house{number % 7} animal{number}" for number in range(40)]
    futures = [search(words, question) for question in questions]
    gate.open.set()
    together = [future.result(PATIENCE) for future in futures]
    assert first.done()
    assert gate.calls[1:] == [questions[start : start + 4] for start in range(0, 40, 4)]
    alone = [words.search(words.plan(question, ["c"])).passages for question in questions]
    assert together == [[(passage.chunk_id, passage.score) for passage in passages] for passages in alone]


def test_what_one_asks_wrongly_is_told_to_that_one(words, gate):
    """A bad plan, a collection that is not there, a reply that fails: the others of the round get theirs."""
    first = search(words, "animal1")
    assert gate.entered.wait(PATIENCE)
    empty, missing = search(words, " "), search(words, "animal2", "nope")
    broken = words.searches.submit(lambda: words.plan("animal3", ["c"]), lambda _, __: 1 // 0)
    good = search(words, "animal4")
    gate.open.set()
    assert isinstance(empty.exception(PATIENCE), BadInput)
    assert isinstance(missing.exception(PATIENCE), NotFound)
    assert isinstance(broken.exception(PATIENCE), ZeroDivisionError)
    assert good.result(PATIENCE)
    assert first.result(PATIENCE)
    assert gate.calls == [["animal1"], ["animal3", "animal4"]]


def test_nothing_is_done_for_who_has_left(words, gate):
    """Left while it waits: no plan is made. Left while others of its round are planned: it is not embedded."""
    first = search(words, "animal1")
    assert gate.entered.wait(PATIENCE)
    planned: list[str] = []

    def plan(question: str) -> Plan:
        planned.append(question)
        if question == "animal4":
            third.cancel()
        return words.plan(question, ["c"])

    second, third, fourth = (
        words.searches.submit(lambda question=question: plan(question), lambda _, ranking: len(ranking.passages))
        for question in ("animal2", "animal3", "animal4")
    )
    assert second.cancel()
    gate.open.set()
    assert first.result(PATIENCE)
    assert fourth.result(PATIENCE) > 0
    assert third.cancelled()
    assert planned == ["animal3", "animal4"]
    assert gate.calls == [["animal1"], ["animal4"]]


def test_a_coroutine_that_is_cancelled_leaves_the_line(words, gate):
    """Answers wait for their passages in the same line, and leave it like searches."""

    async def leave() -> None:
        first = asyncio.ensure_future(words.ask(words.plan("animal1", ["c"])))
        await asyncio.to_thread(gate.entered.wait, PATIENCE)
        second = asyncio.ensure_future(words.ask(words.plan("animal2", ["c"])))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.open.set()
        assert (await first).question == "animal1"

    asyncio.run(leave())
    assert ["animal2"] not in gate.calls


def test_closing_answers_everyone(words, gate):
    """What is in hand is finished, and who waits is told that the server stops."""
    searches = Searches(words.retriever, BatchingEmbedder(gate), ServerSettings(search_threads=1))
    with closing(searches):
        first = searches.submit(lambda: words.plan("animal1", ["c"]), lambda _, ranking: len(ranking.passages))
        assert gate.entered.wait(PATIENCE)
        second = searches.submit(lambda: words.plan("animal2", ["c"]), lambda _, ranking: len(ranking.passages))
        closer = threading.Thread(target=searches.close)
        closer.start()
        assert isinstance(second.exception(PATIENCE), Unavailable)
        gate.open.set()
        assert first.result(PATIENCE) > 0
        closer.join(PATIENCE)
