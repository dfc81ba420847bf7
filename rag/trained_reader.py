"""The built-in reader with a trained model: answers with exact sentences of the passages, each with its quote.

A `rag.protocols.Generator` that quotes, as `rag.reader` does, whose candidates it shares; what is different is who
scores: `rag.span_reader` knows what was asked for, marks the words that answer, and knows how likely there are any.
Knows nothing of how passages were found.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from rag.reader import READ, Candidate, chosen, is_no_answer
from rag.records import Delta, Passage, Prompt
from rag.sentences import Span
from rag.span_reader import Asked, Reading, SpanReader
from rag.windows import window

#: Least probability that a passage answers; below it the reader abstains.
THRESHOLD = 0.5
#: Further sentences are added while they score at most so much below the best one, in log odds.
CLOSE = 3.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What passages say to a question: ``sentences``, best first, the likeliest place of the short answer, and how
    likely they answer at all.

    ``passage`` (from 1) is where the short answer stands, at ``words`` of the parsed text; None if nothing does.
    """

    sentences: tuple[Candidate, ...]
    passage: int
    words: Span | None
    probability: float


class TrainedReader:
    """A `rag.protocols.Generator` that quotes what a trained model found."""

    name = "reader"

    def __init__(self, reader: SpanReader, threshold: float = THRESHOLD) -> None:
        self._reader = reader
        self._threshold = threshold

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Yield the sentences that answer, best passage first, in the order of their text; nothing to abstain."""
        for candidate in await asyncio.to_thread(self.read, prompt.question, prompt.passages):
            yield candidate.quoted()

    async def aclose(self) -> None:
        """Nothing is open that belongs to an event loop."""

    def read(self, question: str, passages: Sequence[Passage]) -> list[Candidate]:
        """Return the sentences of the answer; an empty list when the passages do not answer."""
        found = self.answer(question, passages)
        if found.probability < self._threshold or not found.sentences:
            return []
        return chosen(found.sentences, found.sentences[0].score - CLOSE)

    def answer(self, question: str, passages: Sequence[Passage]) -> Answer:
        """Return all that the first passages, and what stands around them, say to a question."""
        read = [(number, chunk) for number, passage in enumerate(passages[:READ], 1) for chunk in window(passage)]
        readings = self._reader.read([Asked(question, chunk.context, chunk.text) for _, chunk in read])
        if not read:
            return Answer((), 0, None, 0.0)
        candidates = [
            candidate
            for (number, chunk), reading in zip(read, readings, strict=True)
            for candidate in _candidates(number, chunk, reading)
        ]
        (number, chunk), best = max(zip(read, readings, strict=True), key=lambda item: item[1].probability)
        words = (best.answer[0] + chunk.start, best.answer[1] + chunk.start) if best.answer else None
        ranked = sorted(candidates, key=lambda c: (-c.score, c.passage, c.start))
        return Answer(tuple(ranked), number, words, best.probability)


def _candidates(number: int, chunk: Passage, reading: Reading) -> list[Candidate]:
    """Return the sentences of one chunk."""
    found = []
    for sentence in reading.sentences:
        text = chunk.text[sentence.start : sentence.end]
        if is_no_answer(chunk, sentence.start, text):
            continue
        score = reading.log_odds + sentence.score
        found.append(Candidate(number, chunk.start + sentence.start, chunk.start + sentence.end, text, score))
    return found
