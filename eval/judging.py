"""How well a judge agrees with people: rows of evidence, claim and a person's label.

The rows are those of RAGTruth, FEVER and their like, one JSON object a line: ``context``, ``response`` and ``label``
(true: the context supports all of the response). What was measured last of a judge is kept beside the catalog, for the
reports. Knows judges by their protocol, and language models by the scores that they gave.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.folders import json_lines
from eval.statistics import SEED, interval_of
from rag.errors import BadInput
from rag.protocols import Judge
from rag.records import digest

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]
#: Support from which a claim counts as supported.
SUPPORTED = 0.5
#: Rows that are judged in one call.
BATCH = 64


@dataclass(frozen=True, slots=True)
class Labelled:
    """A claim with its evidence, and whether a person found all of it supported."""

    claim: str
    evidence: str
    supported: bool


@dataclass(frozen=True, slots=True)
class Metric:
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float | None]:
        """Return the three numbers, null where there is none."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if math.isnan(number) else round(number, 4) for name, number in numbers.items()}


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many rows of either label a judge called supported or not; ``missed`` were supported, ``passed`` were not."""

    found: int
    missed: int
    passed: int
    refused: int

    @property
    def supported(self) -> int:
        """How many rows people found supported."""
        return self.found + self.missed

    @property
    def unsupported(self) -> int:
        """How many they did not."""
        return self.passed + self.refused

    @property
    def sensitivity(self) -> float:
        """Of the supported rows the share that the judge calls so; NaN if there are none."""
        return self.found / self.supported if self.supported else math.nan

    @property
    def specificity(self) -> float:
        """Of the others the share that it does not; NaN if there are none."""
        return self.refused / self.unsupported if self.unsupported else math.nan


def read_labelled(file: Path, split: str | None = None) -> list[Labelled]:
    """Return the rows of ``file``, plain or compressed JSON lines, those of ``split`` if one is given.

    Without one, rows that say that they are for training are left out. Raises `BadInput`.
    """
    if not file.exists():
        raise BadInput(f"{file} is not there; name a file of JSON lines with context, response and label.")
    rows = [_labelled(row, file, number) for number, row in json_lines(file) if _is_wanted(row.get("split"), split)]
    if not rows:
        raise BadInput(f"{file} has no row{f' of the split {split!r}' if split else ' to judge by'}.")
    return rows


def _is_wanted(found: object, split: str | None) -> bool:
    return found != "train" if split is None else found == split


def _labelled(row: dict[str, Any], file: Path, number: int) -> Labelled:
    context, response, label = row.get("context"), row.get("response"), row.get("label")
    if not isinstance(context, str) or not isinstance(response, str) or not isinstance(label, bool):
        raise BadInput(f"{file}, line {number}, has no text context, text response and label true or false.")
    return Labelled(response, context, label)


def sample_rows(rows: Sequence[Labelled], limit: int | None) -> list[Labelled]:
    """Return ``limit`` of the rows in their order: by chance, but always the same ones."""
    if limit is None or limit >= len(rows):
        return list(rows)
    places = np.random.default_rng(SEED).choice(len(rows), limit, replace=False)
    return [rows[place] for place in sorted(places)]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a judge scored labelled rows; from ``threshold`` on a row is called supported.

    ``failed`` counts rows that it was asked about in vain; they are in nothing else.
    """

    scores: Scores
    labels: Labels
    seconds: float
    threshold: float = SUPPORTED
    failed: int = 0

    def confusion(self) -> Confusion:
        """Return how many rows of either label were called supported or not."""
        judged, labels = self.scores >= self.threshold, self.labels
        return Confusion(
            int((judged & labels).sum()),
            int((~judged & labels).sum()),
            int((judged & ~labels).sum()),
            int((~judged & ~labels).sum()),
        )

    def metrics(self) -> dict[str, Metric]:
        """Return balanced accuracy and F1 (of "supported") at the threshold, and the area under the ROC curve."""
        judged = self.scores >= self.threshold
        return {
            "balanced_accuracy": self._metric(lambda rows: balanced_accuracy(judged[rows], self.labels[rows])),
            "f1": self._metric(lambda rows: f1(judged[rows], self.labels[rows])),
            "auroc": self._metric(lambda rows: auroc(self.scores[rows], self.labels[rows])),
        }

    def as_json(self) -> dict[str, Any]:
        """Return the metrics, the confusion table, how many rows there were and how many were judged in a second."""
        found: dict[str, Any] = {name: metric.as_json() for name, metric in self.metrics().items()}
        return {
            **found,
            "confusion": asdict(self.confusion()),
            "rows": len(self.labels),
            "failed": self.failed,
            "rows_per_second": round(len(self.labels) / self.seconds, 1),
        }

    def _metric(self, statistic: Callable[[npt.NDArray[np.intp]], float]) -> Metric:
        return Metric(statistic(np.arange(len(self.labels))), *interval_of(statistic, len(self.labels)))


def judge_rows(judge: Judge, rows: Sequence[Labelled]) -> Agreement:
    """Let ``judge`` score every row; the time counts what it takes, not how long the judge took to load."""
    start = time.perf_counter()
    scores: list[float] = []
    for first in range(0, len(rows), BATCH):
        scores += judge.support([(row.claim, row.evidence) for row in rows[first : first + BATCH]])
    seconds = time.perf_counter() - start
    return Agreement(np.array(scores), np.array([row.supported for row in rows]), seconds, judge.threshold)


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured last of a judge: when, on which file, and what came out."""

    judge: str
    fingerprint: str
    measured_at: datetime
    file: str
    rows: int
    failed: int
    confusion: Confusion
    metrics: dict[str, Metric]


def keep_agreement(data: Path, judge: str, fingerprint: str, file: str, agreement: Agreement) -> Measured:
    """Keep in the data folder what was measured of a judge on the rows of ``file``, in place of what was before."""
    measured = Measured(
        judge,
        fingerprint,
        datetime.now(UTC),
        file,
        len(agreement.labels),
        agreement.failed,
        agreement.confusion(),
        agreement.metrics(),
    )
    kept = _agreement_file(data, fingerprint)
    kept.parent.mkdir(parents=True, exist_ok=True)
    half = kept.with_suffix(".half")
    half.write_text(json.dumps(asdict(measured), default=datetime.isoformat), encoding="utf-8")
    half.replace(kept)
    return measured


def last_agreement(data: Path, fingerprint: str) -> Measured | None:
    """Return what was measured last of the judge with this fingerprint; None if nothing was, or it can not be read."""
    try:
        row = json.loads(_agreement_file(data, fingerprint).read_text(encoding="utf-8"))
        found = {
            "measured_at": datetime.fromisoformat(row["measured_at"]),
            "confusion": Confusion(**row["confusion"]),
            "metrics": {name: Metric(**numbers) for name, numbers in row["metrics"].items()},
        }
        return Measured(**(row | found))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _agreement_file(data: Path, fingerprint: str) -> Path:
    return data / "agreement" / f"{digest(fingerprint)}.json"


def balanced_accuracy(judged: Labels, labels: Labels) -> float:
    """Return the mean of the shares of supported and of unsupported rows that were judged right; NaN without both."""
    if labels.all() or not labels.any():
        return math.nan
    return float((judged[labels].mean() + (~judged[~labels]).mean()) / 2)


def f1(judged: Labels, labels: Labels) -> float:
    """Return the harmonic mean of precision and recall of the rows judged supported; 0 if none was rightly so."""
    both = int((judged & labels).sum())
    return 2 * both / int(judged.sum() + labels.sum()) if both else 0.0


def auroc(scores: Scores, labels: Labels) -> float:
    """Return the chance that a supported row scores above an unsupported one, ties counting half; NaN without both.

    That is the U of Mann and Whitney over the number of such pairs (Hanley and McNeil, Radiology 143(1), 1982).
    """
    positive, negative = int(labels.sum()), int((~labels).sum())
    if not positive or not negative:
        return math.nan
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * negative))
