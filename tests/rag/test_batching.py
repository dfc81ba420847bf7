"""Rounds: who waits is served in order, together and once, and not at all if it has left; everyone hears of its end."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rag.batching import BatchingEmbedder, Rounds, Turn
from rag.errors import Busy, Unavailable
from rag.protocols import Encoding, Role
from rag.testing import WordEmbedder

PATIENCE = 30
PLAIN = WordEmbedder()


def opened(work, *, threads: int = 1, most: int = 4, places: int = 1000, patience: float = 1000.0) -> Rounds:
    return Rounds(work, name="test", threads=threads, most=most, places=places, patience=patience)


def until(done: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.001)


@dataclass
class Held:
    """Work that shows each round before it does it, and waits to be let on: it answers an item with its square."""

    shown: queue.Queue[list[int]] = field(default_factory=queue.Queue)
    let: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    done: list[int] = field(default_factory=list)

    def __call__(self, turns: Sequence[Turn[int, int]]) -> None:
        self.shown.put([turn.item for turn in turns])
        assert self.let.acquire(timeout=PATIENCE)
        for turn in turns:
            turn.settle(lambda turn=turn: self._square(turn.item))

    def _square(self, item: int) -> int:
        self.done.append(item)
        return item * item


class Line(RuleBasedStateMachine):
    """A model of one thread's rounds: a line, a round in hand, and a bound on both together."""

    @initialize(most=st.integers(1, 4), places=st.integers(1, 8))
    def open(self, most: int, places: int) -> None:
        self.held = Held()
        self.most, self.places = most, places
        self.rounds = opened(self.held, most=most, places=places)
        self.futures: list[Future[int]] = []
        self.line: deque[int] = deque()
        self.hand: list[int] = []
        self.gone: set[int] = set()
        self.ended: list[int] = []

    def there(self) -> int:
        return len([item for item in (*self.line, *self.hand) if item not in self.gone])

    def take(self) -> None:
        """What the thread does when it is free: it takes who is first and still there, if anyone is."""
        stayed = [item for item in self.line if item not in self.gone]
        self.hand = stayed[: self.most]
        self.line = deque(stayed[self.most :])
        if self.hand:
            assert self.held.shown.get(timeout=PATIENCE) == self.hand

    @rule()
    def submit(self) -> None:
        if self.there() == self.places:
            with pytest.raises(Busy) as refused:
                self.rounds.submit(-1)
            assert refused.value.facts["retry_after"] >= 1
            return
        self.futures.append(self.rounds.submit(len(self.futures)))
        self.line.append(len(self.futures) - 1)
        if not self.hand:
            self.take()

    @precondition(lambda self: self.line or self.hand)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from([*self.line, *self.hand]))
        assert self.futures[item].cancel()
        self.gone.add(item)

    @precondition(lambda self: self.hand)
    @rule()
    def finish(self) -> None:
        self.held.let.release()
        stayed = [item for item in self.hand if item not in self.gone]
        assert [self.futures[item].result(PATIENCE) for item in stayed] == [item * item for item in stayed]
        self.ended += stayed
        self.hand = []
        until(lambda: self.rounds._there == self.there())  # a place is free a moment after the answer
        self.take()

    @invariant()
    def only_who_stayed_was_served_in_order_and_once(self) -> None:
        assert self.held.done == self.ended == sorted(self.ended)

    def teardown(self) -> None:
        self.held.let.release(len(self.futures) + 1)
        self.rounds.close()
        for item, future in enumerate(self.futures):
            assert future.done()
            if item in self.gone:
                assert future.cancelled()
            elif item in self.line:
                assert isinstance(future.exception(), Unavailable)
            else:
                assert future.result() == item * item


TestLine = Line.TestCase
TestLine.settings = examples(max_examples=40, stateful_step_count=30, deadline=None)


@dataclass
class Watched:
    """A `WordEmbedder` that keeps the texts of each call, and fails for one that holds ``bad``."""

    calls: list[list[str]] = field(default_factory=list)
    fingerprint, engine, counter = PLAIN.fingerprint, PLAIN.engine, PLAIN.counter
    batch, dimension, window = PLAIN.batch, PLAIN.dimension, PLAIN.window

    def encode(
        self, texts: Sequence[str], *, role: Role = "passage", tokens: bool = False, codes: bool = False
    ) -> Encoding:
        self.calls.append(list(texts))
        if any("bad" in text for text in texts):
            raise ValueError("a bad text")
        return PLAIN.encode(texts, role=role, tokens=tokens, codes=codes)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return PLAIN.count_tokens(texts)


def asking(embedder: BatchingEmbedder, **wanted: bool):
    """Work that embeds each item of a round, one by one as a search does."""

    def work(turns: Sequence[Turn[str, Encoding]]) -> None:
        with embedder.together(lambda: [turn.item for turn in turns if not turn.over]):
            for turn in turns:
                turn.settle(lambda turn=turn: embedder.encode([turn.item], role="query", **wanted))

    return work


def same(one: Encoding, other: Encoding) -> bool:
    return (
        np.array_equal(one.vectors, other.vectors)
        and len(one.tokens) == len(other.tokens)
        and all(np.array_equal(a.vectors, b.vectors) for a, b in zip(one.tokens, other.tokens, strict=True))
        and len(one.codes) == len(other.codes)
        and all(np.array_equal(a, b) for a, b in zip(one.codes, other.codes, strict=True))
    )


@pytest.mark.parametrize("wanted", [{}, {"tokens": True}, {"tokens": True, "codes": True}], ids=str)
def test_many_callers_each_get_the_vector_of_their_own_text(wanted):
    """Sixteen threads ask forty questions each: each answer is what the text alone gives, in fewer calls than texts."""
    inner = Watched()
    rounds = opened(asking(BatchingEmbedder(inner), **wanted), threads=2, most=8)

    def ask(caller: int) -> list[tuple[str, Encoding]]:
        texts = [f"w{(caller * number) % 97} v{number}" for number in range(40)]
        return [(text, rounds.submit(text).result(PATIENCE)) for text in texts]

    with ThreadPoolExecutor(16) as callers:
        told = [pair for pairs in callers.map(ask, range(16)) for pair in pairs]
    rounds.close()
    assert len(told) == 640
    assert all(same(got, PLAIN.encode([text], role="query", **wanted)) for text, got in told)
    assert sum(map(len, inner.calls)) <= 640
    assert max(map(len, inner.calls)) <= 8
    assert len(inner.calls) < 640


def held_round(inner: Watched, *texts: str, leave: Sequence[str] = ()) -> dict[str, Future[Encoding]]:
    """Let ``texts`` gather while a round is in hand, some of them leave, and then work them off."""
    entered, let = threading.Event(), threading.Event()
    work = asking(BatchingEmbedder(inner))

    def holding(turns: Sequence[Turn[str, Encoding]]) -> None:
        if turns[0].item == "first":
            entered.set()
            assert let.wait(PATIENCE)
        work(turns)

    rounds = opened(holding, most=10)
    first = rounds.submit("first")
    assert entered.wait(PATIENCE)
    futures = {text: rounds.submit(text) for text in texts}
    for text in leave:
        assert futures[text].cancel()
    let.set()
    first.result(PATIENCE)
    for text in texts:
        if text not in leave:
            futures[text].exception(PATIENCE)
    rounds.close()
    return futures


def test_who_waits_at_the_same_time_is_embedded_in_one_call():
    """While one round is in the model the next gathers, whole."""
    inner = Watched()
    held_round(inner, "a", "b", "c", "d")
    assert inner.calls == [["first"], ["a", "b", "c", "d"]]


def test_equal_questions_are_embedded_once():
    """Two callers with one text share its row."""
    inner = Watched()
    embedder = BatchingEmbedder(inner)
    with embedder.together(lambda: ["a", "b", "a"]):
        found = [embedder.encode([text], role="query") for text in ("a", "b", "a")]
    assert inner.calls == [["a", "b"]]
    assert same(found[0], found[2])


def test_who_has_left_is_not_embedded():
    """A cancelled question is in no call after its cancel."""
    inner = Watched()
    futures = held_round(inner, "a", "b", "c", leave=["b"])
    assert inner.calls == [["first"], ["a", "c"]]
    with pytest.raises(CancelledError):
        futures["b"].result()


def test_who_leaves_while_its_round_is_in_hand_is_not_embedded():
    """The round was taken with it, but the call is made without it."""
    inner = Watched()
    embedder = BatchingEmbedder(inner)
    left: Future[Encoding] = Future()

    def work(turns: Sequence[Turn[str, Encoding]]) -> None:
        gone = Turn("gone", left)
        left.cancel()
        asking(embedder)([*turns, gone])

    rounds = opened(work)
    rounds.submit("a").result(PATIENCE)
    rounds.close()
    assert inner.calls == [["a"]]


def test_one_bad_text_does_not_fail_its_neighbours():
    """It alone gets the error, and the others the vectors that they would have had alone."""
    futures = held_round(Watched(), "a", "bad", "c")
    assert str(futures["bad"].exception()) == "a bad text"
    for text in ("a", "c"):
        assert same(futures[text].result(), PLAIN.encode([text], role="query"))


def test_outside_of_a_round_everything_passes_through():
    """Passages, many texts at once, questions of no round: exactly the calls that were asked for."""
    inner = Watched()
    embedder = BatchingEmbedder(inner)
    with embedder.together(lambda: ["a", "b"]):
        embedder.encode(["a"])
        embedder.encode(["a", "b"], role="query")
        embedder.encode(["of no round"], role="query")
    embedder.encode(["a"], role="query")
    assert inner.calls == [["a"], ["a", "b"], ["of no round"], ["a"]]
    assert embedder.count_tokens(["a b"]) == inner.count_tokens(["a b"])
    names = ("fingerprint", "engine", "batch", "counter", "dimension", "window")
    assert all(getattr(embedder, name) == getattr(inner, name) for name in names)


def test_who_has_waited_too_long_is_refused_unserved():
    """When its turn comes after its patience has ended, it gets `Busy` and is not worked for."""
    held = Held()
    rounds = opened(held, patience=0.0)
    first = rounds.submit(2)
    until(lambda: first.done() or not held.shown.empty())
    if not first.done():  # it was taken in the very tick of the clock in which it came
        second = rounds.submit(3)
        held.let.release()
        assert first.result(PATIENCE) == 4
        first = second
    assert isinstance(first.exception(PATIENCE), Busy)
    rounds.close()
    assert held.done in ([], [2])


def test_work_that_fails_or_forgets_someone_leaves_nobody_waiting():
    """Everyone of the round hears of it, and the next round is worked off."""

    def work(turns: Sequence[Turn[str, str]]) -> None:
        if turns[0].item == "raise":
            raise OSError("no disk")
        if turns[0].item != "forget":
            turns[0].settle(lambda: "fine")

    rounds = opened(work, most=1)
    assert isinstance(rounds.submit("raise").exception(PATIENCE), OSError)
    assert isinstance(rounds.submit("forget").exception(PATIENCE), AssertionError)
    assert rounds.submit("good").result(PATIENCE) == "fine"
    rounds.close()


def test_after_closing_nobody_is_taken():
    """Closing twice is no harm; a caller that comes then is told so."""
    rounds = opened(Held())
    rounds.close()
    rounds.close()
    with pytest.raises(Unavailable, match="stopping"):
        rounds.submit(1)
