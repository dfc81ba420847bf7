"""Two runs side by side: what each scored on the questions that both asked, and where they differ most.

For two settings, two generators, or two evaluations of a folder. The tests are paired and corrected for all metrics
together (`eval.figures.between`). Texts come from the log of answers: what had to go from there is not shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from eval.figures import between
from eval.history import load_run
from eval.runs import Asked, Change, Run, Source
from rag.catalog import Catalog
from rag.errors import BadInput, NotFound

#: Most questions that are shown side by side.
SHOWN = 10
#: By which score a question differs: the first of these that both have.
_DECIDING = ("correctness", "f1", "ndcg@10", "supported", "gold_cited_recall")


@dataclass(frozen=True, slots=True)
class Row:
    """A metric on the questions that both runs asked: the means of the two, and the change from the second to it."""

    first: float
    second: float
    change: Change


@dataclass(frozen=True, slots=True)
class Side:
    """What one run made of a question: the score that decides, the cause of a failure, and what was said, if known."""

    score: float
    cause: str | None
    said: str | None

    def as_json(self) -> dict[str, Any]:
        """Return it as one object."""
        return {"score": round(self.score, 4), "cause": self.cause, "answer": self.said}


@dataclass(frozen=True, slots=True)
class Differing:
    """A question by whose score ``metric`` two runs differ; without its text where that is not known any more."""

    id: str
    question: str | None
    metric: str
    first: Side
    second: Side


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs side by side; ``differing`` are the questions that differ most, those that the second does worse first.

    ``apart`` counts the questions that only one of them asked.
    """

    first: Run
    second: Run
    rows: tuple[Row, ...]
    differing: tuple[Differing, ...]
    apart: int

    def as_json(self) -> dict[str, Any]:
        """Return all of it as one object of plain JSON."""
        return {
            "reports": [
                {"id": run.id, "label": run.request.label, "generator": run.generator, "settings": run.settings_digest}
                for run in (self.first, self.second)
            ],
            "differences": [
                {"first": round(row.first, 4), "second": round(row.second, 4), **row.change.as_json()}
                for row in self.rows
            ],
            "differing": [
                {
                    "id": one.id, "question": one.question, "metric": one.metric, "first": one.first.as_json(),
                    "second": one.second.as_json(),
                }
                for one in self.differing
            ],
            "apart": self.apart,
        }  # fmt: skip


def compare_runs(catalog: Catalog, first_id: str, second_id: str) -> Comparison:
    """Return two runs of the catalog side by side.

    Raises `NotFound`, `Conflict` if one of them has not come to its end, and `BadInput` if they share no question.
    """
    first, second = (load_run(catalog, catalog.report(name)) for name in (first_id, second_id))
    ours, theirs = _by_key(first), _by_key(second)
    shared = [(ours[key], theirs[key]) for key in ours if key in theirs]
    rows = [_row(change, shared) for change in between(first, second)]
    if not rows:
        raise BadInput("The two reports have no scored question in common.")
    apart = len(ours.keys() ^ theirs.keys())
    return Comparison(first, second, tuple(rows), tuple(_differing(catalog, shared)), apart)


def _by_key(run: Run) -> dict[tuple[Source, str], Asked]:
    return {(one.source, one.key): one for one in run.asked if one.source is not Source.TRAFFIC}


def _row(change: Change, shared: Sequence[tuple[Asked, Asked]]) -> Row:
    name, meant = change.metric, change.scope
    both = [
        (one.scores.values[name], other.scores.values[name])
        for one, other in shared
        if one.source is meant.source and name in one.scores.values and name in other.scores.values
    ]
    first, second = (math.fsum(values) / len(both) for values in zip(*both, strict=True))
    return Row(first, second, change)


def _differing(catalog: Catalog, shared: Sequence[tuple[Asked, Asked]]) -> list[Differing]:
    found = []
    for one, other in shared:
        metric = next((m for m in _DECIDING if m in one.scores.values and m in other.scores.values), None)
        if metric and one.scores.values[metric] != other.scores.values[metric]:
            found.append((one.scores.values[metric] - other.scores.values[metric], metric, one, other))
    largest = sorted(found, key=lambda row: (-abs(row[0]), -row[0]))[:SHOWN]
    return [_told(catalog, *row[1:]) for row in largest]


def _told(catalog: Catalog, metric: str, one: Asked, other: Asked) -> Differing:
    question, sides = None, []
    for asked in (one, other):
        asked_for, said = _texts(catalog, asked)
        question = question or asked_for
        sides.append(Side(asked.scores.values[metric], asked.cause.value if asked.cause else None, said))
    if question is None and one.source is Source.GOLDEN:
        with suppress(NotFound):
            question = catalog.golden(one.id).question
    return Differing(one.id, question, metric, *sides)


def _texts(catalog: Catalog, asked: Asked) -> tuple[str | None, str | None]:
    """Return question and answer as the log has them."""
    with suppress(NotFound):
        logged = catalog.answer(asked.answer_id) if asked.answer_id else None
        if logged and logged.texts:
            return logged.texts.plan.question if logged.texts.plan else None, logged.texts.answer.text
    return None, None


def labels(found: Comparison) -> Mapping[str, str]:
    """Return how the two runs are called: by their labels where these differ, else by their ids."""
    first, second = found.first.request.label, found.second.request.label
    told = first and second and first != second
    return {"A": first if told else found.first.id, "B": second if told else found.second.id}
