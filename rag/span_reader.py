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

from rag.amounts import whole_amount
from rag.pair_model import Read, TrainedPairs
from rag.pairs import Pair, sentence_means
from rag.sentences import Span, sentence_spans

#: The longest answer that is marked, in tokens.
LONGEST = 40
#: The numbers of tokens up to this one are signs, letters and the most common words.
COMMON = 2050


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
    """The best of all windows of a passage: does it answer, how far is the answer above none, and where is it.

    ``missing`` and ``elsewhere`` say what of the question the window with that answer does not hold, see `unmatched`.
    """

    answers: float = -math.inf
    margin: float = -math.inf
    answer: Span | None = None
    missing: float = 0.0
    elsewhere: float = 0.0


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
        """Return the values (n, 5) that the probability is made of: fitted by `eval.training.calibration`."""
        return np.array([_values(signs, sentences) for signs, sentences in self._signs(asked)]).reshape(-1, 5)

    def first_odds(self, asked: Sequence[Asked]) -> list[float]:
        """Return the log odds that each passage answers its question, of as much of it as is read at a time."""
        found = self._signs(asked, most=1)
        return [self._log_odds(_values(signs, sentences)) for signs, sentences in found]

    def lengths(self, question: str, texts: Sequence[str]) -> list[int]:
        """Return how many tokens are read for each text beside ``question``, were there room for all of them."""
        return self._model.tokenizer.lengths(question, texts)

    @property
    def facts(self) -> dict[str, Any]:
        """What training left to know beside the model, see `rag.pair_model.TrainedPairs`."""
        return self._model.facts

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def _signs(self, asked: Sequence[Asked], most: int | None = None) -> list[tuple[_Signs, list[Sentence]]]:
        pairs: list[Pair] = []
        bounds = [0]
        for question, context, text in asked:
            pairs += self._model.tokenizer.windows(question, [_head(context) + text])[0][:most]
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
    said = [max(min(value, 20.0), -20.0) for value in (signs.answers, signs.margin, best)]
    return [*said, signs.missing, signs.elsewhere]


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
            signs.answer = whole_amount(asked.text, (start - lead, end - lead))
            sentence = next((span for span in moved if span[0] <= start < span[1]), (lead, lead + len(asked.text)))
            signs.missing, signs.elsewhere = unmatched(pair, lead, sentence)
    sentences = [Sentence(start, end, score) for (start, end), score in zip(spans, scores, strict=True)]
    return signs, [sentence for sentence in sentences if sentence.score > -math.inf]


def unmatched(pair: Pair, lead: int, sentence: Span) -> tuple[float, float]:
    """Return how rare the words of the question are that are missing, and those that are in other sentences alone.

    Both are sums over the distinct tokens of the first text: of those that the second one does not have, and of those
    that it has, but neither before the character ``lead`` (its headings) nor in the ``sentence``. A question that was
    written to look answerable names something that the passage says elsewhere (Rajpurkar, Jia and Liang, ACL 2018).
    The vocabulary is in the order of frequency, so that a token's number tells how rare it is: ln(number / `COMMON`),
    0 for the most common words, for letters and signs.
    """
    starts, ends = pair.spans[:, 0], pair.spans[:, 1]
    asked = np.unique(pair.ids[(pair.types == 0) & (pair.ids > COMMON)])
    rare = np.log(asked / COMMON)
    near = pair.own & ((ends <= lead) | ((starts >= sentence[0]) & (ends <= sentence[1])))
    there, here = np.isin(asked, pair.ids[pair.own]), np.isin(asked, pair.ids[near])
    return float(rare[~there].sum()), float(rare[there & ~here].sum())


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
