"""How good answers are: what was said to each question against what is known of it, as shares with intervals.

The words are compared as SQuAD 2.0 does (`eval.reading`), the cited passages with those that people judged relevant,
each quote with the stored text, and abstentions with the questions that nothing answers. Every figure is a sum over the
questions divided by how much was counted in them; its interval is a bootstrap over the questions. Knows records of
what was said, and nothing of how it came about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eval.judging import Metric
from eval.reading import exact_match, is_said, plain_words, word_f1
from eval.statistics import Numbers, interval_of_share
from rag.queries import Message

#: Why a figure has no value, if it has none.
REASONS = {
    "f1": "No question has known answers.",
    "exact_match": "No question has known answers.",
    "f1_answerable": "No question that can be answered has known answers.",
    "exact_match_answerable": "No question that can be answered has known answers.",
    "answer_in_text": "No question that can be answered has known answers.",
    "gold_cited_precision": "No question with a relevant passage was answered.",
    "gold_cited_recall": "No question has a relevant passage.",
    "quotes_verbatim": "Nothing was cited.",
    "abstention_precision": "No question is marked as one that nothing answers, or none at all got an abstention.",
    "abstention_recall": "No question is marked as one that nothing answers.",
    "support": "Nothing was claimed.",
    "supported": "Nothing was claimed.",
    "sentence_precision": "No question has gold sentences, or none of those was answered.",
    "sentence_recall": "No question has gold sentences.",
    "sentence_f1": "No question has gold sentences.",
}


@dataclass(frozen=True, slots=True)
class Known:
    """A question and what is known of it.

    ``relevant`` are the ids of passages that were judged so, ``answers`` the accepted ones, ``parts`` those of an
    answer that is a list, and ``sentences`` those that a long answer rests on. ``filters`` says where to look.
    """

    id: str
    text: str
    answerable: bool
    answers: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    relevant: frozenset[str] = frozenset()
    filters: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Cited:
    """A citation: the words ``quote`` of a version at [start, end), and if it is a row, ``cells`` likewise.

    ``passages`` are the ids of the passage that they stand in and of its near-copies, in which they might as well.
    """

    passages: tuple[str, ...]
    version_id: str
    start: int
    end: int
    quote: str
    cells: tuple[tuple[int, int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Said:
    """What was said to a question: the text without markers (empty if it was an abstention) and the short answer.

    ``supports`` has a number for each claim that documents could support; ``supported`` of them reach the judge's
    threshold. ``citations`` are those of the claims, ``conflicting`` those of what documents say otherwise. ``first``
    and ``last`` are the seconds until the first and the last token, ``whole`` those until the answer was there with its
    citations.
    """

    question: str
    text: str
    short: str | None
    abstained: bool
    supports: tuple[float, ...]
    supported: int
    citations: tuple[Cited, ...]
    conflicting: tuple[Cited, ...]
    withheld: int
    generator: str
    first: float
    last: float
    whole: float


@dataclass(frozen=True, slots=True)
class Answered:
    """A question, what was said to it, and of each citation, conflicting ones last, whether it is word for word."""

    known: Known
    said: Said
    verbatim: tuple[bool, ...]


#: What counts for and how much is counted, of one question.
Part = tuple[float, float]
_NOTHING: Part = (0.0, 0.0)


def metrics(answered: Sequence[Answered]) -> dict[str, Metric]:
    """Return every figure by its name in `REASONS`, not a number where nothing is counted.

    - ``f1``, ``exact_match``: as `eval.reading` has them, of the short answer where there is one, else of all that was
      said; of all that was said, too, where the known answers are long ones. The mean over the questions with known
      answers and those that nothing answers, on which an abstention counts 1 and an answer 0, as in SQuAD 2.0
      (Rajpurkar, Jia and Liang, ACL 2018); an abstention on another one counts 0. ``..._answerable``: without those
      that nothing answers.
    - ``answer_in_text``: whether a known answer, all parts of one, or of a long one a sentence that it rests on, stands
      in what was said, signs and case apart. The mean over the questions with known answers.
    - ``gold_cited_precision``: the share of the cited passages that are relevant, the mean over the questions with
      relevant passages that were answered; an answer that cites nothing counts 0. ``gold_cited_recall``: the share of
      the relevant passages that are cited, the mean over all questions with some; an abstention counts 0.
    - ``quotes_verbatim``: the share of all citations whose quote, and each cell of it, stands word for word at its
      place.
    - ``abstention_precision``: the share of the abstentions that are on questions that nothing answers;
      ``abstention_recall``: the share of those questions that got one.
    - ``support``: the mean support of all claims; ``supported``: the share of those that the judge calls supported.
    - ``sentence_...``: of the sentences that an answer cites against the gold ones of a long answer: precision over the
      questions that were answered, recall and F1 over all that have some, in which an abstention counts 0.
    """
    return {name: _metric(parts) for name, parts in _parts(answered).items()}


def each(answered: Sequence[Answered]) -> list[dict[str, float]]:
    """Return for each question its own share of every figure of `metrics` in which something of it is counted."""
    found: list[dict[str, float]] = [{} for _ in answered]
    for name, parts in _parts(answered).items():
        for values, (counts, counted) in zip(found, parts, strict=True):
            if counted:
                values[name] = counts / counted
    return found


def _parts(answered: Sequence[Answered]) -> dict[str, list[Part]]:
    possible = any(not one.known.answerable for one in answered)
    counted: dict[str, Callable[[Answered], Part]] = {
        "f1": lambda one: _words(one, word_f1),
        "exact_match": lambda one: _words(one, exact_match),
        "answer_in_text": _in_text,
        "gold_cited_precision": _cited_that_are_gold,
        "gold_cited_recall": _gold_that_is_cited,
        "quotes_verbatim": lambda one: (float(sum(one.verbatim)), float(len(one.verbatim))),
        "abstention_precision": lambda one: _mean(not one.known.answerable, counts=possible and one.said.abstained),
        "abstention_recall": lambda one: _mean(one.said.abstained, counts=not one.known.answerable),
        "f1_answerable": lambda one: _words(one, word_f1) if one.known.answerable else _NOTHING,
        "exact_match_answerable": lambda one: _words(one, exact_match) if one.known.answerable else _NOTHING,
        "support": lambda one: (sum(one.said.supports), float(len(one.said.supports))),
        "supported": lambda one: (float(one.said.supported), float(len(one.said.supports))),
        "sentence_precision": lambda one: _sentences(one)[0],
        "sentence_recall": lambda one: _sentences(one)[1],
        "sentence_f1": lambda one: _sentences(one)[2],
    }
    return {name: [part(one) for one in answered] for name, part in counted.items()}


def as_json(found: Mapping[str, Metric]) -> dict[str, dict[str, Any]]:
    """Return the numbers of each figure, null where there are none, and the ``reason`` then."""
    return {
        name: metric.as_json() | ({"reason": REASONS[name]} if math.isnan(metric.value) else {})
        for name, metric in found.items()
    }


def stands(cited: Cited, text: str) -> bool:
    """Say whether a quote has words, and stands with its cells at their places in the text of its version."""
    places = (cited.start, cited.end, cited.quote), *cited.cells
    return bool(cited.quote.strip()) and all(text[start:end] == words for start, end, words in places)


def _metric(parts: Sequence[Part]) -> Metric:
    """Return the sum of what counts over the sum of what is counted, with its interval."""
    every: Numbers = np.array(parts, dtype=np.float64).reshape(-1, 2)
    counts, counted = every.sum(axis=0)
    return Metric(float(counts / counted) if counted else math.nan, *interval_of_share(every))


def _mean(value: float, *, counts: bool = True) -> Part:
    return (float(value), 1.0) if counts else _NOTHING


def _words(one: Answered, score: Callable[[str, Sequence[str]], float]) -> Part:
    known, said = one.known, one.said
    if known.answerable and not known.answers:
        return _NOTHING
    shown = said.text if said.short is None or known.sentences else said.short
    return _mean(score("" if said.abstained else shown, known.answers))


def _in_text(one: Answered) -> Part:
    known, text = one.known, one.said.text
    gold = (*known.answers, *known.sentences)
    said = is_said(text, gold) or (bool(known.parts) and all(is_said(text, [part]) for part in known.parts))
    return _mean(said, counts=bool(gold))


def _cited_that_are_gold(one: Answered) -> Part:
    cited = {citation.passages[0]: citation.passages for citation in one.said.citations}
    right = sum(not one.known.relevant.isdisjoint(passages) for passages in cited.values())
    return _mean(right / max(1, len(cited)), counts=bool(one.known.relevant) and not one.said.abstained)


def _gold_that_is_cited(one: Answered) -> Part:
    cited = {passage for citation in one.said.citations for passage in citation.passages}
    relevant = one.known.relevant
    return _mean(len(relevant & cited) / max(1, len(relevant)), counts=bool(relevant))


def _sentences(one: Answered) -> tuple[Part, Part, Part]:
    """Return precision, recall and F1 of the cited sentences.

    Two sentences are the same where one has all words of the other one after the other: people cut them otherwise.
    """
    gold = {plain_words(sentence) for sentence in one.known.sentences} - {""}
    if not gold:
        return _NOTHING, _NOTHING, _NOTHING
    shown = {plain_words(citation.quote) for citation in one.said.citations} - {""}
    precision = sum(any(_same(sentence, other) for other in gold) for sentence in shown) / max(1, len(shown))
    recall = sum(any(_same(sentence, other) for other in shown) for sentence in gold) / len(gold)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return _mean(precision, counts=not one.said.abstained), _mean(recall), _mean(f1)


def _same(first: str, second: str) -> bool:
    return f" {first} " in f" {second} " or f" {second} " in f" {first} "
