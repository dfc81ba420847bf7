"""The figures of a report: the mean of each metric with its interval, and how it moved against earlier runs.

Figures are taken over the questions of one source, all of them or those of one collection or tag. A change is the mean
difference over the questions that both sides asked, tested in pairs, and all changes of a report are corrected together
for being many. Knows runs (`eval.runs`) and numbers, and no page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from eval.runs import Asked, Run, Source
from eval.statistics import compare, holm, interval, interval_of

#: The metrics that stand at the top of the page and that are tested, in their order.
HEADLINES = (
    "correctness", "supported", "faithfulness", "abstention", "citation_precision", "citation_recall", "recall@5",
    "ndcg@10",
)  # fmt: skip
#: The metrics of each part of the page.
RETRIEVAL = ("recall@5", "recall@20", "ndcg@10", "mrr@10")
ANSWERS = (
    "correctness", "supported", "faithfulness", "citation_precision", "citation_recall", "quotes_verbatim",
    "abstention",
)  # fmt: skip
#: Runs that a run is compared with beside the last one.
HISTORY = 30
#: What a change is against that gates and the page look for.
LAST_RUN = "last run"
#: Corrected p values up to this one count as a change.
SIGNIFICANCE = 0.05
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Figure:
    """The mean of a metric over ``count`` questions with its 95 % interval; ``failed`` could not be scored."""

    metric: str
    value: float
    low: float
    high: float
    count: int
    failed: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the numbers, rounded."""
        return {
            "value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4),
            "count": self.count, "failed": self.failed,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """How far a metric is above an earlier run or runs (``versus``) on the ``count`` questions that both have.

    ``p_value`` is corrected for all changes that are told together; ``runs`` says how many runs it is compared with.
    """

    metric: str
    versus: str
    mean: float
    low: float
    high: float
    p_value: float
    count: int
    runs: int = 1

    @property
    def is_sure(self) -> bool:
        """Whether chance alone is no good explanation."""
        return self.p_value <= SIGNIFICANCE

    def as_json(self) -> dict[str, Any]:
        """Return the numbers, rounded."""
        return {
            "metric": self.metric, "versus": self.versus, "difference": round(self.mean, 4),
            "interval": [round(self.low, 4), round(self.high, 4)], "p_value": round(self.p_value, 4),
            "questions": self.count, "runs": self.runs, "is_sure": self.is_sure,
        }  # fmt: skip


# -- figures ---------------------------------------------------------------------------------------------------------


def figures(asked: Sequence[Asked], metrics: Sequence[str] | None = None) -> dict[str, Figure]:
    """Return the figure of each metric that at least one of the questions has, or of those named, in their order."""
    named = metrics or list(dict.fromkeys(name for one in asked for name in one.scores.values))
    found: dict[str, Figure] = {}
    for name in named:
        scored = [one for one in asked if name in one.scores.values]
        if scored:
            failed = sum(name in one.scores.failures for one in asked)
            values, weights = [one.scores.values[name] for one in scored], [one.weight for one in scored]
            found[name] = Figure(name, *_mean(values, weights), len(scored), failed)
    return found


def _mean(values: Sequence[float], weights: Sequence[float]) -> tuple[float, float, float]:
    """Return the weighted mean with its interval; all weights are 1 but for questions that stand for several."""
    if all(weight == 1 for weight in weights):
        return float(np.mean(values)), *interval(values)
    v, w = np.asarray(values), np.asarray(weights)
    low, high = interval_of(lambda rows: float(np.average(v[rows], weights=w[rows])), len(v))
    return float(np.average(v, weights=w)), low, high


def by_collection(asked: Sequence[Asked], metrics: Sequence[str]) -> dict[str, dict[str, Figure]]:
    """Return the figures of the questions of each collection, by its name."""
    return _grouped(asked, metrics, lambda one: [one.collection])


def by_tag(asked: Sequence[Asked], metrics: Sequence[str]) -> dict[str, dict[str, Figure]]:
    """Return the figures of the questions with each tag."""
    return _grouped(asked, metrics, lambda one: one.tags)


def _grouped(
    asked: Sequence[Asked], metrics: Sequence[str], groups_of: Callable[[Asked], Iterable[str]]
) -> dict[str, dict[str, Figure]]:
    names = sorted({group for one in asked for group in groups_of(one)})
    return {name: figures([one for one in asked if name in groups_of(one)], metrics) for name in names}


def latencies(asked: Sequence[Asked]) -> dict[str, dict[str, float]]:
    """Return the percentiles of the seconds to the first word, the last one and the end, of what was asked now."""
    names = list(dict.fromkeys(name for one in asked for name in one.seconds))
    return {
        name: {
            f"p{p}": round(float(np.percentile([one.seconds[name] for one in asked if name in one.seconds], p)), 4)
            for p in PERCENTILES
        }
        for name in names
    }


def rates(asked: Sequence[Asked]) -> dict[str, float]:
    """Return which share of what was asked now got no answer, and which the built-in reader had to answer."""
    now = [one for one in asked if one.source is not Source.TRAFFIC]
    if not now:
        return {}
    return {
        "error_rate": sum(one.error is not None for one in now) / len(now),
        "fall_back_rate": sum(one.fallen_back for one in now) / len(now),
        "abstention_rate": sum(one.abstained for one in now) / len(now),
    }


def flat(run: Run) -> dict[str, float]:
    """Return every figure of a run that a gate may speak of by its name: golden metrics, rates and percentiles."""
    golden = run.of(Source.GOLDEN)
    found = {name: figure.value for name, figure in figures(golden).items()}
    found |= rates(run.asked)
    for name, percentiles in latencies(run.asked).items():
        found |= {f"seconds_{name}_{p}": seconds for p, seconds in percentiles.items()}
    service = run.service
    return found | {
        "documents": float(service.documents), "passages": float(service.passages), "waiting": float(service.waiting),
        "oldest_seconds": service.oldest_seconds, "failed_documents": float(service.failed),
    }  # fmt: skip


# -- changes ---------------------------------------------------------------------------------------------------------


def changes(run: Run, before: Sequence[Run], metrics: Sequence[str] = HEADLINES) -> list[Change]:
    """Return how the golden figures of a run moved against the last run and against the mean of the last `HISTORY`.

    ``before`` are the runs before it, the newest first. A question is compared with itself: in the one run, or with its
    mean over all runs that have it. Everything returned is one family of tests, corrected together.
    """
    if not before:
        return []
    last = [_change(run, before[:1], name, "last run") for name in metrics]
    month = (
        [_change(run, before[:HISTORY], name, f"last {HISTORY} runs") for name in metrics] if len(before) > 1 else []
    )
    found = [change for change in (*last, *month) if change is not None]
    corrected = holm([change.p_value for change in found])
    return [replace(change, p_value=p) for change, p in zip(found, corrected, strict=True)]


def between(first: Run, second: Run, metrics: Sequence[str] | None = None) -> list[Change]:
    """Return how far each metric of ``first`` is above ``second``, on the questions of all sources that both have."""
    named = metrics or list(dict.fromkeys(name for one in first.asked for name in one.scores.values))
    found = [_change(first, [second], name, second.id, source=None) for name in named]
    kept = [change for change in found if change is not None]
    corrected = holm([change.p_value for change in kept])
    return [replace(change, p_value=p) for change, p in zip(kept, corrected, strict=True)]


def _change(
    run: Run, before: Sequence[Run], metric: str, versus: str, source: Source | None = Source.GOLDEN
) -> Change | None:
    now = _values(run, metric, source)
    then = [_values(earlier, metric, source) for earlier in before]
    usual = {key: [values[key] for values in then if key in values] for key in now}
    pairs = [(now[key], math.fsum(values) / len(values)) for key, values in usual.items() if values]
    if not pairs:
        return None
    found = compare([first for first, _ in pairs], [second for _, second in pairs])
    used = sum(bool(now.keys() & values.keys()) for values in then)
    return Change(metric, versus, found.mean, found.low, found.high, found.p_value, len(pairs), used)


def _values(run: Run, metric: str, source: Source | None) -> Mapping[str, float]:
    asked = run.asked if source is None else run.of(source)
    return {one.key: one.scores.values[metric] for one in asked if metric in one.scores.values}
