"""The built-in reader: answers with exact sentences of the passages, each with its quote. It can not invent.

No language model: it compares the token vectors of the question with those of each sentence (late interaction, MaxSim
of Khattab and Zaharia, "ColBERT", SIGIR 2020, over the embedder's own token vectors) and keeps silent when too little
of the question is met. Knows the embedder by its protocol, and nothing of how passages were found.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import numpy as np

from rag.protocols import Embedder, TokenVectors, Vectors
from rag.records import CELL, Delta, Kind, Passage, Prompt, Quote
from rag.sentences import sentence_spans
from rag.windows import window
from rag.words import STOP_WORDS, WORD

# The numbers below were chosen on training questions alone; eval/LOG.md has the figures.

#: Passages that are read; the rest of the prompt is for language models.
READ = 5
#: What a match elsewhere in the passage (headings, neighbours, a table's header) counts beside one in the sentence.
NEARBY = 0.8
#: Least share of the question that the best sentence must meet; below it the reader abstains.
THRESHOLD = 0.58
#: Further sentences are added while they score at least this share of the best one.
CLOSE = 0.93
MOST_SENTENCES = 3
QUESTION_WORDS = frozenset(
    "what which who whom whose when where why how many much long often does do did is are".split()
)


#: A name or year: a word of three or more characters with a digit in it, as 2026, E07 or 14,850. Smaller figures are
#: amounts, which a document may well put in other figures ("98 percent" in a row "97 to 99").
FIGURE = re.compile(r"(?=[^\W_.,]*\d)(?:[^\W_]|(?<=\d)[.,](?=\d)){3,}")
#: What such a word weighs beside another word of content.
FIGURE_WEIGHT = 2.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence of passage ``passage`` (from 1) or of a chunk around it; ``score`` says how well it answers.

    It stands at [start, end) in the parsed text. Scores of one reader may be compared: `Reader` gives the share of the
    question that is met, in [0, 1].
    """

    passage: int
    start: int
    end: int
    text: str
    score: float

    def quoted(self, short: Quote | None = None) -> Delta:
        """Return it as a piece of an answer that quotes it; ``short`` are the words in it that are the short answer."""
        return Delta(self.text, (Quote(self.passage, self.start, self.end),), short)


def chosen(candidates: Sequence[Candidate], least: float) -> list[Candidate]:
    """Return the first candidates (best first) that score ``least`` or more: in the order of the text, none twice."""
    found: dict[str, Candidate] = {}
    for candidate in candidates:
        if candidate.score >= least and len(found) < MOST_SENTENCES:
            found.setdefault(candidate.text, candidate)
    return sorted(found.values(), key=lambda c: (c.passage, c.start))


class Reader:
    """A `rag.protocols.Generator` that quotes."""

    name = "reader"
    quotes = True

    def __init__(self, embedder: Embedder, threshold: float = THRESHOLD) -> None:
        self._embedder = embedder
        self._threshold = threshold

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Yield the sentences that answer, best passage first, in the order of their text; nothing to abstain."""
        for candidate in await asyncio.to_thread(self.read, prompt.question, prompt.passages):
            yield candidate.quoted()

    async def aclose(self) -> None:
        """Nothing is open."""

    def read(self, question: str, passages: Sequence[Passage]) -> list[Candidate]:
        """Return the sentences of the answer; an empty list when the passages do not answer."""
        candidates = self.score(question, passages)
        if not candidates or candidates[0].score < self._threshold:
            return []
        return chosen(candidates, CLOSE * candidates[0].score)

    def score(self, question: str, passages: Sequence[Passage]) -> list[Candidate]:
        """Return every sentence of the first passages, and of what stands around them, with its score, best first."""
        read = [(number, chunk) for number, passage in enumerate(passages[:READ], 1) for chunk in window(passage)]
        if not read:
            return []
        asked = self._embedder.encode([question], role="query", tokens=True).tokens[0]
        weights = token_weights(question, asked)
        encoded = self._encoded([chunk for _, chunk in read])
        candidates = [
            candidate
            for (number, chunk), tokens in zip(read, encoded, strict=True)
            for candidate in _candidates(question, number, chunk, tokens, asked, weights)
        ]
        return sorted(candidates, key=lambda c: (-c.score, c.passage, c.start))

    def _encoded(self, chunks: Sequence[Passage]) -> list[TokenVectors]:
        """Return the tokens of all of each chunk's indexed text, however long it is."""
        texts = [chunk.indexed_text for chunk in chunks]
        found = self._embedder.encode(texts, tokens=True).tokens
        counts = self._embedder.count_tokens(texts)
        return [
            tokens if count <= self._embedder.window else self._completed(chunk, tokens)
            for chunk, tokens, count in zip(chunks, found, counts, strict=True)
        ]

    def _completed(self, chunk: Passage, tokens: TokenVectors) -> TokenVectors:
        """Return the tokens of a chunk with those that the window cut off, which are read under the same headings."""
        head = len(chunk.indexed_text) - len(chunk.text)
        cut = 0
        while cut := _next_cut(chunk.text, cut, int(tokens.spans[:, 1].max(initial=0)) - head):
            read = self._embedder.encode([chunk.indexed_text[:head] + chunk.text[cut:]], tokens=True).tokens[0]
            tokens = _joined(tokens, read, head, cut)
        return tokens


def _next_cut(text: str, last: int, reached: int) -> int:
    """Return where the first sentence behind ``last`` begins that is not read to its end; 0 if there is none."""
    return next((start for start, end in sentence_spans(text) if start > last and end > reached), 0)


def _joined(tokens: TokenVectors, more: TokenVectors, head: int, cut: int) -> TokenVectors:
    """Return tokens with those of the text from ``cut`` on, which was read behind the same ``head``."""
    kept, own = tokens.spans[:, 1] <= head + cut, more.spans[:, 0] >= head
    return TokenVectors(
        np.concatenate([tokens.vectors[kept], more.vectors[own]]),
        np.concatenate([tokens.spans[kept], more.spans[own] + cut]),
        np.concatenate([tokens.ids[kept], more.ids[own]]),
    )


def token_weights(question: str, asked: TokenVectors) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return a weight for each token of the question, scaled to add up to 1.

    A word of content weighs 1, a name with a figure 2, any other word 0.1, shared among its tokens.
    """
    weights = np.zeros(len(asked.ids), dtype=np.float32)
    for match in WORD.finditer(question):
        word = match.group().casefold()
        inside = _inside(asked, match.span())
        weight = 0.1 if word in STOP_WORDS or word in QUESTION_WORDS else 1.0
        weights[inside] = weight / max(int(inside.sum()), 1)
    for match in FIGURE.finditer(question):
        inside = _inside(asked, match.span())
        weights[inside] = FIGURE_WEIGHT / max(int(inside.sum()), 1)
    return weights / max(float(weights.sum()), 1e-9)


def _candidates(
    question: str,
    number: int,
    passage: Passage,
    tokens: TokenVectors,
    asked: TokenVectors,
    weights: np.ndarray[tuple[int], np.dtype[np.float32]],
) -> list[Candidate]:
    if not len(tokens.ids) or not len(asked.ids):
        return []
    matches = asked.vectors @ tokens.vectors.T  # (question tokens, passage tokens)
    _match_figures(matches, question, passage.indexed_text, asked, tokens)
    nearby = NEARBY * matches.max(axis=1)
    shift = len(passage.indexed_text) - len(passage.text)
    found = []
    for start, end in sentence_spans(passage.text):
        if is_no_answer(passage, start, passage.text[start:end]):
            continue
        inside = _inside(tokens, (start + shift, end + shift))
        if inside.any():
            best = np.maximum(matches[:, inside].max(axis=1), nearby)
            text = passage.text[start:end]
            found.append(Candidate(number, passage.start + start, passage.start + end, text, float(weights @ best)))
    return found


def _match_figures(matches: Vectors, question: str, text: str, asked: TokenVectors, tokens: TokenVectors) -> None:
    """Let the words of a question that hold a digit match only themselves: to a model, all figures look alike."""
    places: dict[str, list[tuple[int, int]]] = {}
    for match in FIGURE.finditer(text):
        places.setdefault(match.group().casefold(), []).append(match.span())
    for word in FIGURE.finditer(question):
        there = np.zeros(len(tokens.ids), dtype=bool)
        for span in places.get(word.group().casefold(), ()):
            there |= _inside(tokens, span)
        matches[_inside(asked, word.span())] = there.astype(np.float32)


def _inside(tokens: TokenVectors, span: tuple[int, int]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which tokens lie within a span of characters."""
    inside: np.ndarray[tuple[int], np.dtype[np.bool_]] = (tokens.spans[:, 0] >= span[0]) & (
        tokens.spans[:, 1] <= span[1]
    )
    return inside


def is_no_answer(passage: Passage, start: int, text: str) -> bool:
    """Say whether a sentence is a heading, a question or a table's header row: alike to questions, but no answers."""
    header_row = passage.kind is Kind.TABLE and start == 0 and CELL not in passage.context.rpartition("\n")[2]
    return text in passage.section or text.endswith(("?", "？")) or header_row
