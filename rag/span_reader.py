"""The trained reader: which sentences of passages answer a question, the words that do, and whether any do at all.

A small encoder reads question and passage together and tells of each token whether the answer starts or ends there,
of each sentence whether it holds the answer, and of the passage whether it answers. Sentences are those of the text: it
can not invent. Knows its model as values of tokens, and nothing of how passages were found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rag.pair_model import Read, TrainedPairs
from rag.pairs import Pair, sentence_means
from rag.sentences import Span, sentence_spans

#: The longest answer that is marked, in tokens.
LONGEST = 40


class Asked(NamedTuple):
    """A question to one passage: its ``context`` (headings; may be empty) stands above its ``text``."""

    question: str
    context: str
    text: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence [start, end) of a passage; ``score`` is higher where it is more likely to hold the answer."""

    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What a passage says to a question.

    ``answer`` is the place of the answer in its text, if it has any; ``log_odds`` are those that it answers,
    calibrated; ``answers`` and ``margin`` what the model says of that: does the passage answer, and how far are the
    best words above none. ``sentences`` in their order.
    """

    answer: Span | None
    log_odds: float
    answers: float
    margin: float
    sentences: tuple[Sentence, ...]

    @property
    def probability(self) -> float:
        """How likely the passage answers."""
        return 1 / (1 + math.exp(-self.log_odds))


@dataclass(slots=True)
class _Signs:
    """The best of all windows of a passage: does it answer, how far is the answer above none, and where is it."""

    answers: float = -math.inf
    margin: float = -math.inf
    answer: Span | None = None


class SpanReader:
    """Reads with the model ``reader`` of the package. Thread-safe."""

    def __init__(self, model: TrainedPairs) -> None:
        self._model = model

    def read(self, asked: Sequence[Asked]) -> list[Reading]:
        """Return what each passage says to its question."""
        found = []
        for signs, sentences in self._signs(asked):
            values = _values(signs, sentences)
            found.append(Reading(signs.answer, self._log_odds(values), values[0], values[1], tuple(sentences)))
        return found

    def signs(self, asked: Sequence[Asked]) -> npt.NDArray[np.float64]:
        """Return the values (n, 3) that the probability is made of: fitted by `eval.training.calibration`."""
        return np.array([_values(signs, sentences) for signs, sentences in self._signs(asked)]).reshape(-1, 3)

    @property
    def facts(self) -> dict[str, Any]:
        """What training left to know beside the model, see `rag.pair_model.TrainedPairs`."""
        return self._model.facts

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def _signs(self, asked: Sequence[Asked]) -> list[tuple[_Signs, list[Sentence]]]:
        pairs: list[Pair] = []
        bounds = [0]
        for question, context, text in asked:
            pairs += self._model.tokenizer.windows(question, [_head(context) + text])[0]
            bounds.append(len(pairs))
        read = self._model.read(pairs)
        return [
            _joined(one, pairs[bounds[i] : bounds[i + 1]], read[bounds[i] : bounds[i + 1]])
            for i, one in enumerate(asked)
        ]

    def _log_odds(self, values: Sequence[float]) -> float:
        facts = self._model.facts["answers"]
        return float(np.dot(facts["weights"], values) + facts["offset"])


def _head(context: str) -> str:
    return f"{context}\n" if context else ""


def _values(signs: _Signs, sentences: Sequence[Sentence]) -> list[float]:
    best = max((sentence.score for sentence in sentences), default=-20.0)
    return [max(min(value, 20.0), -20.0) for value in (signs.answers, signs.margin, best)]


def _joined(asked: Asked, pairs: Sequence[Pair], read: Sequence[Read]) -> tuple[_Signs, list[Sentence]]:
    """Return the best of the windows of one passage, with offsets in its text."""
    lead = len(_head(asked.context))
    spans = sentence_spans(asked.text)
    moved = [(start + lead, end + lead) for start, end in spans]
    scores = [-math.inf] * len(spans)
    signs = _Signs()
    for pair, values in zip(pairs, read, strict=True):
        signs.answers = max(signs.answers, float(values.row[0]))
        for number, score in enumerate(sentence_means(pair, moved, values.token[:, 2])):
            if score is not None:
                scores[number] = max(scores[number], score)
        found = best_span(pair, values.token[:, 0], values.token[:, 1], lead)
        if found is not None and found[1] > signs.margin:
            (start, end), signs.margin = found
            signs.answer = start - lead, end - lead
    sentences = [Sentence(start, end, score) for (start, end), score in zip(spans, scores, strict=True)]
    return signs, [sentence for sentence in sentences if sentence.score > -math.inf]


def best_span(
    pair: Pair, starts: npt.NDArray[np.float32], ends: npt.NDArray[np.float32], first: int
) -> tuple[Span, float] | None:
    """Return the likeliest answer behind the character ``first`` and how far it is above no answer at all.

    That is max over i <= j < i + `LONGEST` of s(i) + e(j), less s(0) + e(0), the values of [CLS].
    """
    own = np.flatnonzero(pair.own & (pair.spans[:, 0] >= first))
    if not len(own):
        return None
    sums = starts[own][:, None] + ends[own][None, :]
    rows, columns = np.indices(sums.shape)
    sums = np.where((columns >= rows) & (columns < rows + LONGEST), sums, -np.inf)
    i, j = np.unravel_index(int(sums.argmax()), sums.shape)
    place = int(pair.spans[own[i], 0]), int(pair.spans[own[j], 1])
    return place, float(sums[i, j] - starts[0] - ends[0])
