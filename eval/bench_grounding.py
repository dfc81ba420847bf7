"""What citing and judging add to a streamed answer: ``python -m eval.bench_grounding --data folder/squad``.

A generator that writes at the pace of a server writes the same words over the same real passages twice: read as they
come, and through the answer journey under each policy. The words are sentences of the passages, every second one put
in a few words of its own, every third one without a marker, and one that no passage says. Times begin when the passages
are there. Prints a table of medians. Knows the journey by its events.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from eval.bench_reader import untrained_settings
from eval.folders import load_corpus, read_questions
from eval.tables import Table, hardware, report
from rag.answers import Policy, Wish
from rag.assembly import Citewell, open_citewell
from rag.grounding import LexicalJudge
from rag.judge import TrainedJudge
from rag.pair_model import WEIGHTS, TrainedPairs
from rag.pipeline import Done, Passages, Token
from rag.prompt import build_prompt, estimate_tokens
from rag.protocols import Judge
from rag.records import Delta, Plan, Prompt
from rag.sentences import sentence_spans

#: Sentences of an answer; a token has about so many characters.
SENTENCES, TOKEN = 6, 4
#: The generator is there to write, not to take questions apart.
PLAIN = {"decompose": False}
INVENTED = "All of this was decided by the council of Atlantis in 1207."


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from the passages to the first and the last token, and to the end of the answer."""

    first: float
    last: float
    done: float


class Paced:
    """A generator that has its tokens ready one after the other, ``pace`` of them a second, whoever reads them."""

    name = "paced"
    quotes = False

    def __init__(self, pace: float) -> None:
        self._pace = pace

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Yield what `written` makes of the passages."""
        text = written(prompt)
        begin = time.perf_counter()
        for number, start in enumerate(range(0, len(text), TOKEN), 1):
            await asyncio.sleep(max(0.0, begin + number / self._pace - time.perf_counter()))
            yield Delta(text[start : start + TOKEN])

    async def aclose(self) -> None:
        """Nothing is open."""


def written(prompt: Prompt) -> str:
    """Return an answer of `SENTENCES` sentences of the first passages, and one that is invented."""
    sentences: list[str] = []
    for number, passage in enumerate(prompt.passages, 1):
        for place, (start, end) in enumerate(sentence_spans(passage.text)[:2]):
            words = passage.text[start:end].rstrip(".")
            said = f"As for that, {words} indeed" if place else words
            sentences.append(f"{said}. [{number}]" if len(sentences) % 3 else f"{said}.")
    return " ".join([*sentences[:SENTENCES], INVENTED])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder in BEIR layout")
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--pace", type=float, default=50.0, help="tokens a second")
    parser.add_argument("--judge", choices=["words", "trained"], default="words")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--log", type=Path, default=Path("nowhere"))
    given = parser.parse_args(arguments)
    with (
        _opened_judge(given.judge, given.weights) as judge,
        open_citewell(untrained_settings(), generator=Paced(given.pace), judge=judge) as citewell,
    ):
        name = load_corpus(citewell, given.data).name
        questions = read_questions(given.data)
        asked = questions[:: max(1, len(questions) // given.questions)][: given.questions]
        table = side_by_side(citewell, [citewell.plan(one.text, [name], parts=PLAIN) for one in asked])
    title = f"Streamed answers at {given.pace:g} tokens/s, {len(asked)} questions of {given.data.name}, judge: "
    report(f"{title}{given.judge}, {hardware()}", table, given.log)


@contextmanager
def _opened_judge(kind: str, weights: Path) -> Iterator[Judge]:
    if kind == "words":
        yield LexicalJudge()
        return
    with closing(TrainedJudge(TrainedPairs("judge", weights))) as judge:
        judge.support([("The first call loads the model.", "It is loaded by the first call.")])
        yield judge


def side_by_side(citewell: Citewell, plans: Sequence[Plan]) -> Table:
    """Return a row for the generator alone and for each policy: medians, and the last token's delay against alone.

    The ways take turns on each question, so that what else the machine does meets all of them.
    """
    ways = {"generator alone": _alone} | {str(policy): partial(_streamed, policy=policy) for policy in Policy}
    times: dict[str, list[Times]] = {way: [] for way in ways}

    async def measure() -> None:
        for run in ways.values():
            await run(citewell, plans[0])  # the first one loads what is loaded once
        for plan in plans:
            for way, run in ways.items():
                times[way].append(await run(citewell, plan))

    asyncio.run(measure())
    rows = [["way", "first token, ms", "last token, ms", "end, ms", "last token, added", "first token, added ms"]]
    for way, found in times.items():
        pairs = list(zip(found, times["generator alone"], strict=True))
        added = statistics.median(one.last / alone.last - 1 for one, alone in pairs)
        later = statistics.median(one.first - alone.first for one, alone in pairs)
        medians = [statistics.median(getattr(one, part) for one in found) for part in ("first", "last", "done")]
        own = [f"{added:+.1%}", f"{1000 * later:+.1f}"] if way != "generator alone" else ["", ""]
        rows.append([way, *(f"{1000 * median:,.0f}" for median in medians), *own])
    return rows


async def _alone(citewell: Citewell, plan: Plan) -> Times:
    ranking = await asyncio.to_thread(citewell.search, plan)
    budget = citewell.pipeline.prompt_tokens
    prompt = build_prompt(plan.question, ranking.passages, budget_tokens=budget, count_tokens=estimate_tokens)
    start = time.perf_counter()
    async with aclosing(citewell.generator.generate(prompt)) as deltas:
        moments = [time.perf_counter() - start async for _ in deltas]
    return Times(moments[0], moments[-1], moments[-1])


async def _streamed(citewell: Citewell, plan: Plan, policy: Policy) -> Times:
    start = done = time.perf_counter()
    moments = []
    async with aclosing(citewell.pipeline.stream(plan, Wish(policy=policy))) as events:
        async for event in events:
            if isinstance(event, Passages):
                start = time.perf_counter()
            elif isinstance(event, Token):
                moments.append(time.perf_counter() - start)
            elif isinstance(event, Done):
                done = time.perf_counter() - start
    return Times(moments[0], moments[-1], done)


if __name__ == "__main__":
    main()
