"""What a judge found of answers: the score of each metric with its reasons, or why there is none.

Scores can be kept in files by a digest of all that they came of, so that what has not changed is not judged again. They
quote documents: a purge removes these files (`rag.store`). Knows no metric's formula, no judge and no model.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from eval.judging import Metric
from eval.statistics import interval

METRICS = (
    "faithfulness", "answer_relevancy", "context_precision", "context_recall", "factual_correctness",
    "noise_sensitivity",
)  # fmt: skip
#: Everywhere else more is better; Ragas' users know this one so.
LOWER_IS_BETTER = frozenset({"noise_sensitivity"})
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A question and what was said to it: the ``answer`` without markers, empty if it was an abstention.

    ``contexts`` are the texts of the passages that the answer was written from, best first; ``reference`` is what
    should have been said, empty if nobody knows.
    """

    id: str
    question: str
    answer: str
    contexts: tuple[str, ...]
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a score is what it is: what a judge says of one claim ``against`` a text.

    That is ``passages``, ``passage 3``, ``reference``, ``answer`` or ``question``. ``evidence`` is the sentence that
    decides and ``support`` what it gives, where the judge tells these; ``reason`` is what a language model says.
    """

    claim: str
    against: str
    verdict: bool
    evidence: str = ""
    support: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one sample; ``tokens`` and ``seconds`` are what it cost, nothing if it was kept from before."""

    sample: str
    metric: str
    value: float
    findings: tuple[Finding, ...]
    tokens: int = 0
    seconds: float = 0.0
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Unscored:
    """A metric that has no score for a sample, and why in one sentence.

    ``failed``: there should be one, and the judge or the time did not give it; otherwise there is nothing to score.
    """

    sample: str
    metric: str
    why: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Scored:
    """All that came of judging samples by metrics. No score is not a number, and what failed is in no mean."""

    judge: str
    fingerprint: str
    scores: tuple[Score, ...]
    unscored: tuple[Unscored, ...]

    def values(self, metric: str) -> dict[str, float]:
        """Return the scores of a metric by the ids of the samples."""
        return {score.sample: score.value for score in self.scores if score.metric == metric}

    def figure(self, metric: str) -> Metric:
        """Return the mean of a metric with its 95 % bootstrap interval over the samples; NaN where none has a score."""
        values = list(self.values(metric).values())
        return Metric(float(np.mean(values)), *interval(values)) if values else Metric(math.nan, math.nan, math.nan)

    def supported(self) -> list[tuple[int, int]]:
        """Return for each answer how many of its claims the passages support, and how many it has.

        These are the verdicts of the metric ``faithfulness``.
        """
        judged = [score.findings for score in self.scores if score.metric == "faithfulness"]
        return [(sum(finding.verdict for finding in findings), len(findings)) for findings in judged]

    def failures(self) -> dict[str, int]:
        """Return how many scores of each metric failed, metrics without a failure left out."""
        return dict(Counter(one.metric for one in self.unscored if one.failed))

    def as_json(self) -> dict[str, Any]:
        """Return the figures of the metrics that were asked for, what was not scored and why, and what it cost."""
        named = {score.metric for score in self.scores} | {one.metric for one in self.unscored}
        return {
            "judge": self.judge,
            "fingerprint": self.fingerprint,
            "metrics": {
                metric: self.figure(metric).as_json() | {"scored": len(self.values(metric))}
                for metric in METRICS
                if metric in named
            },
            "failures": self.failures(),
            "unscored": [asdict(one) for one in self.unscored],
            "cached": sum(score.cached for score in self.scores),
            "tokens": sum(score.tokens for score in self.scores),
            "seconds": round(sum(score.seconds for score in self.scores), 3),
        }


class ScoreFiles:
    """Scores in files of a folder, each under the digest of what it came of. Safe for several processes at once.

    A file that is damaged is as good as none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str, sample: str) -> Score | None:
        """Return what is kept under ``key`` as the score of ``sample``, marked as cached; None if nothing is."""
        file = self._file(key)
        try:
            row = json.loads(file.read_text(encoding="utf-8"))
            found = _read(row, sample)
            file.touch()  # `forget` goes by the last use
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return found if math.isfinite(found.value) else None

    def keep(self, key: str, score: Score) -> None:
        """Write a score, whole or not at all."""
        file = self._file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        half = file.with_name(f"{uuid4().hex}.half")
        row = {"metric": score.metric, "value": score.value, "findings": [asdict(one) for one in score.findings]}
        half.write_text(json.dumps(row, allow_nan=False), encoding="utf-8")
        half.replace(file)

    def forget(self, days: float) -> int:
        """Remove what was not used for so many days, and half-written files of that age; return how many files."""
        oldest = time.time() - days * _DAY
        old = [file for file in self._folder.glob("??/*") if _used(file) < oldest]
        for file in old:
            file.unlink(missing_ok=True)
        return len(old)

    def _file(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"


def _read(row: Mapping[str, Any], sample: str) -> Score:
    findings: Sequence[Mapping[str, Any]] = row["findings"]
    score = Score(sample, str(row["metric"]), float(row["value"]), tuple(Finding(**finding) for finding in findings))
    return replace(score, cached=True)


def _used(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:  # another process forgot it
        return math.inf
