"""The built-in reader with a trained model: answers with exact sentences of the passages, each with its quote.

A `rag.protocols.Generator` that quotes, as `rag.reader` does. Two read each sentence: `rag.span_reader`, which knows
what was asked for and marks the words that answer, and `rag.reader`, which knows how much of the question is met there.
What they say is joined by weights that training left beside the model (`eval.training.calibration`), as it left the
probability below which it keeps silent. Knows nothing of how passages were found.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import numpy as np

from rag.reader import READ, Candidate, Reader, chosen, is_no_answer
from rag.records import Delta, Passage, Prompt, Quote
from rag.span_reader import Asked, Reading, SpanReader
from rag.windows import window

#: Further sentences are added while they score at most so much below the best one, in log odds, and until one of those
#: that are there answers with this probability.
CLOSE, SURE = 3.0, 0.85


@dataclass(frozen=True, slots=True)
class Seen:
    """A sentence at [start, end) of the parsed text, in passage ``passage`` (from 1) or around it, read by both.

    ``values`` are the four that its score is made of: does its chunk answer, how far are the best words of that above
    none, does the sentence answer, and how much of the question it meets. ``words`` are those best words, where they
    stand in this sentence.
    """

    passage: int
    start: int
    end: int
    text: str
    values: tuple[float, float, float, float]
    words: Quote | None


@dataclass(frozen=True, slots=True)
class Found:
    """What passages say to a question: ``sentences`` to show in the order of their text, and the short answer.

    ``probability`` is how likely the passages answer, whether they are shown or not; ``short`` the place of the short
    answer in one of the sentences, if there is one.
    """

    sentences: tuple[Candidate, ...]
    short: Quote | None
    probability: float


class TrainedReader:
    """A `rag.protocols.Generator` that quotes what a trained model found."""

    name = "reader"
    quotes = True

    def __init__(self, spans: SpanReader, words: Reader) -> None:
        self._spans = spans
        self._words = words

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Yield the sentences that answer, best passage first, in the order of their text; nothing to abstain."""
        found = await asyncio.to_thread(self.answer, prompt.question, prompt.passages)
        for sentence in found.sentences:
            yield sentence.quoted(found.short if found.short and _holds(sentence, found.short) else None)

    async def aclose(self) -> None:
        """Nothing is open that belongs to an event loop."""

    def read(self, question: str, passages: Sequence[Passage]) -> list[Candidate]:
        """Return the sentences of the answer; an empty list when the passages do not answer."""
        return list(self.answer(question, passages).sentences)

    def answer(self, question: str, passages: Sequence[Passage]) -> Found:
        """Return what the first passages, and what stands around them, say to a question."""
        seen = self.see(question, passages)
        if not seen:
            return Found((), None, 0.0)
        scores = _linear(self._spans.facts["sentences"], [one.values for one in seen])
        order = sorted(range(len(seen)), key=lambda i: (-scores[i], seen[i].passage, seen[i].start))
        ranked = [Candidate(s.passage, s.start, s.end, s.text, scores[i]) for i in order for s in [seen[i]]]
        best = ranked[0].score
        [log_odds] = _linear(self._spans.facts["passages"], [(best,)])
        probability = 1 / (1 + math.exp(-log_odds))
        if probability < self._spans.facts["threshold"]:
            return Found((), None, probability)
        shown = chosen(_enough(ranked), best - CLOSE)
        marked = (seen[i].words for i in order)
        short = next((words for words in marked if words and any(_holds(one, words) for one in shown)), None)
        return Found(tuple(shown), short, probability)

    def probability(self, question: str, passages: Sequence[Passage]) -> float:
        """Return how likely the first passages, and what stands around them, answer a question."""
        return self.answer(question, passages).probability

    def see(self, question: str, passages: Sequence[Passage]) -> list[Seen]:
        """Return every sentence of the first passages, and of what stands around them, that may be an answer."""
        read = [(number, chunk) for number, passage in enumerate(passages[:READ], 1) for chunk in window(passage)]
        readings = self._spans.read([Asked(question, chunk.context, chunk.text) for _, chunk in read])
        met = {(c.passage, c.start, c.end): c.score for c in self._words.score(question, passages)}
        return [
            sentence
            for (number, chunk), reading in zip(read, readings, strict=True)
            for sentence in _sentences(number, chunk, reading, met)
        ]


def _enough(ranked: Sequence[Candidate]) -> list[Candidate]:
    """Return the first sentences, best first: as many as it takes until one of them answers as surely as `SURE`.

    Sentences count as independent; one that is there already says nothing more.
    """
    found: dict[str, Candidate] = {}
    doubt = 1.0
    for candidate in ranked:
        if candidate.text not in found:
            found[candidate.text] = candidate
            doubt *= 1 - 1 / (1 + math.exp(-candidate.score))
        if doubt < 1 - SURE:
            break
    return [*found.values()]


def _sentences(number: int, chunk: Passage, reading: Reading, met: dict[tuple[int, int, int], float]) -> list[Seen]:
    """Return the sentences of one chunk; ``met`` has by place how much of the question each of them meets."""
    answer = reading.answer or (0, 0)
    words = Quote(number, answer[0] + chunk.start, answer[1] + chunk.start) if reading.answer else None
    found = []
    for sentence in reading.sentences:
        place = number, chunk.start + sentence.start, chunk.start + sentence.end
        text = chunk.text[sentence.start : sentence.end]
        if is_no_answer(chunk, sentence.start, text):
            continue
        values = reading.answers, reading.margin, sentence.score, met.get(place, 0.0)
        own = words if words and sentence.start <= answer[0] and answer[1] <= sentence.end else None
        found.append(Seen(*place, text, values, own))
    return found


def _linear(fitted: dict[str, object], rows: Sequence[Sequence[float]]) -> list[float]:
    """Return for each row of values the log odds that a logistic regression gives."""
    return [float(value) for value in np.array(rows) @ np.array(fitted["weights"]) + fitted["offset"]]


def _holds(sentence: Candidate, words: Quote) -> bool:
    return sentence.passage == words.passage and sentence.start <= words.start and words.end <= sentence.end
