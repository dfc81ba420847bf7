"""How well the reader answers when it is given the right passages: the marked words, and when to keep silent.

F1 and exact match are those of SQuAD 2.0 (Rajpurkar, Jia and Liang, ACL 2018): the words of the answer against those of
the best fitting gold answer, articles and punctuation left out; a question that its passage does not answer counts 1
if no answer is given and 0 otherwise. Knows the reader as a function, and no retrieval.
"""

from __future__ import annotations

import math
import re
import string
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.folders import read_relevant, read_rows
from eval.judging import Metric
from eval.statistics import interval_of
from rag.errors import BadInput
from rag.span_reader import Asked, Reading

Numbers = npt.NDArray[np.float64]
Read = Callable[[Sequence[Asked]], Sequence[Reading]]
#: Probability from which an answer is given.
ANSWERED = 0.5
#: The share of answerable questions that must be answered when refusals are counted.
COVERAGE = 0.9
#: Questions that are read in one call.
BATCH = 32
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SIGNS = str.maketrans(dict.fromkeys(string.punctuation + "“”‘’–", " "))


@dataclass(frozen=True, slots=True)
class Given:
    """A question with its passages, (context, text) each, and its gold answers: none if they do not answer it."""

    question: str
    passages: tuple[tuple[str, str], ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """What the reader said to a question: the marked words of its best passage and how sure it is of them."""

    text: str
    probability: float


def read_given(folder: Path) -> list[Given]:
    """Return the questions of a folder in BEIR layout that have answers, or are marked as having none.

    The passages are all of the question's ``context_id`` where it has one, else those judged relevant, else the
    ``source_paragraph`` of a question without an answer. Raises `BadInput`.
    """
    corpus = {str(row["_id"]): row for row in read_rows(folder, "corpus")}
    shared: dict[str, list[str]] = {}
    for key, row in corpus.items():
        if row.get("context_id"):
            shared.setdefault(str(row["context_id"]), []).append(key)
    relevant = read_relevant(folder)
    found = []
    for row in read_rows(folder, "queries"):
        answers = tuple(str(answer) for answer in row.get("answers") or ())
        if not answers and row.get("answerable", True):
            continue
        own = [key for key, grade in relevant.get(str(row["_id"]), {}).items() if grade > 0]
        keys = shared.get(str(row.get("context_id"))) or own or [str(row.get("source_paragraph"))]
        passages = tuple((str(corpus[k].get("title") or ""), str(corpus[k]["text"])) for k in keys if k in corpus)
        if passages:
            found.append(Given(str(row["text"]), passages, answers if row.get("answerable", True) else ()))
    if not found:
        raise BadInput(f"{folder} has no question with answers and passages; its queries need the field answers.")
    return found


def read_all(read: Read, questions: Sequence[Given]) -> tuple[list[Answered], float]:
    """Return what the reader says to each question, and the seconds that took."""
    start = time.perf_counter()
    found: list[Answered] = []
    for first in range(0, len(questions), BATCH):
        batch = questions[first : first + BATCH]
        readings = iter(read([Asked(given.question, *passage) for given in batch for passage in given.passages]))
        found += [_best([(text, next(readings)) for _, text in given.passages]) for given in batch]
    return found, time.perf_counter() - start


def _best(readings: Sequence[tuple[str, Reading]]) -> Answered:
    text, reading = max(readings, key=lambda item: item[1].probability)
    return Answered(text[slice(*reading.answer)] if reading.answer else "", reading.probability)


@dataclass(frozen=True, slots=True)
class Comprehension:
    """What a reader said to questions with known answers."""

    questions: Sequence[Given]
    answered: Sequence[Answered]
    seconds: float

    def metrics(self) -> dict[str, Metric]:
        """Return F1, exact match, and the share of unanswerable questions refused where `COVERAGE` are answered."""
        sure = np.array([answered.probability for answered in self.answered])
        answerable = np.array([bool(given.answers) for given in self.questions])
        return {
            "f1": self._mean(word_f1),
            "exact_match": self._mean(exact_match),
            "refused_unanswerable_at_90_coverage": self._metric(lambda rows: refused(sure[rows], answerable[rows])),
        }

    def as_json(self) -> dict[str, Any]:
        """Return the metrics, how many questions there were and how many were read in a second."""
        found: dict[str, Any] = {name: metric.as_json() for name, metric in self.metrics().items()}
        return {**found, "rows": len(self.questions), "rows_per_second": round(len(self.questions) / self.seconds, 1)}

    def risk(self, coverages: Sequence[float]) -> Mapping[float, float]:
        """Return for each share of all questions, the surest first, one less the mean F1 of the answers given there.

        An answer to what has none counts 0 (El-Yaniv and Wiener, JMLR 11, 2010, call this the risk-coverage curve).
        """
        order = np.argsort([-answered.probability for answered in self.answered], kind="stable")
        gains = np.array(
            [
                word_f1(self.answered[i].text, self.questions[i].answers) if self.questions[i].answers else 0.0
                for i in order
            ]
        )
        return {share: 1 - float(gains[: max(1, round(share * len(gains)))].mean()) for share in coverages}

    def _mean(self, score: Callable[[str, Sequence[str]], float]) -> Metric:
        values = np.array(
            [
                score(answered.text if answered.probability >= ANSWERED else "", given.answers)
                for given, answered in zip(self.questions, self.answered, strict=True)
            ]
        )
        return self._metric(lambda rows: float(values[rows].mean()))

    def _metric(self, statistic: Callable[[npt.NDArray[np.intp]], float]) -> Metric:
        return Metric(statistic(np.arange(len(self.questions))), *interval_of(statistic, len(self.questions)))


def word_f1(said: str, answers: Sequence[str]) -> float:
    """Return the best F1 of the words of ``said`` with one of ``answers``; without answers 1 if nothing is said."""
    if not answers:
        return float(not said)
    return max(_f1(_words(said), _words(answer)) for answer in answers)


def exact_match(said: str, answers: Sequence[str]) -> float:
    """Say (1 or 0) whether ``said`` is one of ``answers`` word for word; without answers, whether nothing is said."""
    return float(any(_words(said) == _words(answer) for answer in answers) if answers else not said)


def is_said(text: str, answers: Sequence[str]) -> bool:
    """Say whether one of ``answers`` stands in a text, signs, white space and case apart."""
    said = f" {plain_words(text)} "
    return any(f" {plain_words(answer)} " in said for answer in answers)


def plain_words(text: str) -> str:
    """Return the words of a text in lower case with one space between them, signs left out."""
    return re.sub(r"\s+", " ", text.casefold().translate(_SIGNS)).strip()


def refused(sure: Numbers, answerable: npt.NDArray[np.bool_]) -> float:
    """Return the share of unanswerable questions whose probability is below that of `COVERAGE` of the answerable ones.

    NaN where one of the two kinds is missing.
    """
    if answerable.all() or not answerable.any():
        return math.nan
    needed = math.ceil(COVERAGE * int(answerable.sum()))
    least = np.sort(sure[answerable])[-needed]
    return float((sure[~answerable] < least).mean())


def _f1(said: Sequence[str], answer: Sequence[str]) -> float:
    if not said or not answer:
        return float(said == answer)
    same = sum((Counter(said) & Counter(answer)).values())
    return 2 * same / (len(said) + len(answer))


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()
