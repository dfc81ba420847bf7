"""Searches of many callers at once: each finds what it would find alone, and nothing is done for one that has left."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from rag.assembly import Citewell
from rag.batching import BatchingEmbedder
from rag.catalog import Seal
from rag.errors import BadInput, NotFound, Unavailable
from rag.records import Plan, Ranking
from rag.searches import Searches
from rag.settings import ServerSettings
from tests.gate import PATIENCE, Gate, gated

#: A question with options of its own: which parts take part, how many passages, how much they are to differ.
WORDS = st.sampled_from("animal1 animal12 house3 house5 sea1 lives the storm".split())
ASKED = st.fixed_dictionaries({
    "question": st.lists(WORDS, min_size=1).map(" ".join),
    "parts": st.fixed_dictionaries({}, optional={name: st.booleans() for name in ("lexical", "late", "hop")}),
    "top_k": st.integers(1, 20),
    "diversity": st.sampled_from([0.0, 0.4]),
    "filters": st.sampled_from([{}, {"document": "animals"}, {"document": "plants"}]),
})  # fmt: skip


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


@examples(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(ASKED, st.booleans()), min_size=1, max_size=5))
def test_a_round_finds_to_the_last_bit_what_each_of_it_finds_alone(words, gate, asked):
    """Whatever each asks for: the same passages, scores, copies and trace as by the plain path, one after another."""
    plans = [words.plan(collections=["c"], **wanted) for wanted, _ in asked]
    gate.open.set()
    alone = [words.search(plan, trace=trace) for plan, (_, trace) in zip(plans, asked, strict=True)]
    gate.open.clear()
    gate.entered.clear()
    first = search(words, "animal0")
    assert gate.entered.wait(PATIENCE)
    futures: list[Future[Ranking]] = [
        words.searches.submit(lambda plan=plan: plan, lambda _, ranking: ranking, trace=trace)
        for plan, (_, trace) in zip(plans, asked, strict=True)
    ]
    gate.open.set()
    together = [future.result(PATIENCE) for future in futures]
    assert first.result(PATIENCE)
    assert [found.passages for found in together] == [found.passages for found in alone]
    assert [found.stages for found in together] == [found.stages for found in alone]
    assert [bool(found.stages) for found in together] == [trace for _, trace in asked]


def test_who_leaves_while_its_round_goes_on_gets_no_reply(words, gate):
    """Nothing is written for it, and the others get theirs."""
    first = search(words, "animal1")
    assert gate.entered.wait(PATIENCE)
    replied: list[str] = []

    def reply(plan: Plan, _: Ranking) -> None:
        replied.append(plan.question)
        if plan.question == "animal2":
            assert third.cancel()

    second, third, fourth = (
        words.searches.submit(lambda question=question: words.plan(question, ["c"]), reply)
        for question in ("animal2", "animal3", "animal4")
    )
    gate.open.set()
    first.result(PATIENCE)
    second.result(PATIENCE)
    fourth.result(PATIENCE)
    assert replied == ["animal2", "animal4"]
    assert third.cancelled()


def test_a_moment_keeps_the_counters_for_its_thread_alone(words):
    """Searches that begin together ask for them once; whoever begins later, or elsewhere, sees what was committed."""
    catalog = words.store.catalog
    collection = catalog.collection("c").id
    before = catalog.pulse(collection)
    elsewhere = []
    with catalog.one_moment():
        assert catalog.pulse(collection) == before
        catalog.record_seal(collection, "dense", "space", Seal("folder", 1))
        with catalog.one_moment():
            assert catalog.pulse(collection) == before
        assert catalog.pulse(collection) == before
        thread = threading.Thread(target=lambda: elsewhere.append(catalog.pulse(collection)))
        thread.start()
        thread.join(PATIENCE)
    assert catalog.pulse(collection).commits == before.commits + 1
    assert elsewhere == [catalog.pulse(collection)]


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
