"""An answer in the making: text never waits for the judge, and what the judge says comes in order, all of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from rag.answers import Claim, Policy
from rag.citations import Citer
from rag.grounded import MOST_AT_ONCE, Grounded
from rag.grounding import LexicalJudge
from rag.records import Delta
from tests.rag.passages import passage

POLICY = passage("Hotels cost 145 euros. Trains come first. Flights need approval.")
SENTENCES = ("Hotels cost 145 euros. [1] ", "Trains come first. [1] ", "Dogs bark. [1] ", "Flights need approval.")


@dataclass
class Slow:
    """The judge of words, who says nothing before he is let; counts his calls."""

    name: str = "slow"
    threshold: float = LexicalJudge.threshold
    let: threading.Event = field(default_factory=threading.Event)
    calls: int = 0

    def support(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        assert self.let.wait(60)
        self.calls += 1
        return LexicalJudge().support(pairs)


def grounded(judge: Slow, policy: Policy = Policy.REPORT) -> Grounded:
    return Grounded(Citer([POLICY], judge), lambda _: POLICY.text, policy)


def test_no_text_waits_for_the_judge():
    """All the text is out before he has said a word; then all claims follow, in order."""

    async def work() -> None:
        judge = Slow()
        making = grounded(judge)
        out = []
        for sentence in SENTENCES:
            out += making.write(Delta(sentence))
            await asyncio.sleep(0)
        assert "".join(out) == "".join(SENTENCES)
        asyncio.get_running_loop().call_later(0.05, judge.let.set)
        rest = [piece async for piece in making.end()]
        assert [claim.text for claim in rest] == [sentence.removesuffix("[1] ").strip() for sentence in SENTENCES]
        assert [claim.supported for claim in rest] == [True, True, False, True]

    asyncio.run(work())


def test_what_is_judged_comes_while_the_generator_writes():
    async def work() -> None:
        judge = Slow()
        judge.let.set()
        making = grounded(judge)
        out: list[str | Claim] = []
        for sentence in SENTENCES[:2]:
            out += making.write(Delta(sentence))
        while not any(isinstance(piece, Claim) for piece in out):
            await asyncio.sleep(0.01)
            out += making.write(Delta(""))
        assert out[-1].text == "Hotels cost 145 euros."
        await making.aclose()

    asyncio.run(work())


def test_sentences_that_wait_are_judged_together():
    """A judge that is slower than the generator is not asked for each of them."""

    async def work() -> None:
        judge = Slow()
        making = grounded(judge)
        for _ in range(MOST_AT_ONCE):
            list(making.write(Delta("Hotels cost 145 euros. [1] ")))
            await asyncio.sleep(0)
        judge.let.set()
        assert len([piece async for piece in making.end() if isinstance(piece, Claim)]) == MOST_AT_ONCE
        assert judge.calls <= 3

    asyncio.run(work())


def test_what_judging_raises_comes_through():
    async def work() -> None:
        making = Grounded(Citer([POLICY], LexicalJudge()), lambda _: str(1 / 0), Policy.REPORT)
        list(making.write(Delta(SENTENCES[0])))
        with pytest.raises(ZeroDivisionError):
            [piece async for piece in making.end()]

    asyncio.run(work())


def test_closed_half_way_it_leaves_nothing_behind():
    async def work() -> None:
        judge = Slow()
        making = grounded(judge)
        list(making.write(Delta("".join(SENTENCES))))
        await asyncio.sleep(0)
        await making.aclose()
        judge.let.set()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(work())
