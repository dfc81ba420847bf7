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

from eval.runs import Asked, Change, Run, Scope, Source
from eval.scored import METRICS
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
PERCENTILES = (50, 95, 99)
EVERYTHING = Scope()
#: The names of all that is scored question by question, of shares, of seconds, and of the state of the service.
SCORED = tuple(dict.fromkeys([*HEADLINES, *RETRIEVAL, *ANSWERS, *METRICS]))
RATES = ("error_rate", "fall_back_rate", "abstention_rate")
SECONDS = tuple(f"seconds_{until}_p{p}" for until in ("first", "last", "end") for p in PERCENTILES)
SERVICE = ("documents", "passages", "index_bytes", "waiting", "oldest_seconds", "failed_documents")


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


def flat(run: Run, scope: Scope = EVERYTHING) -> dict[str, float]:
    """Return every figure of a run that a gate may speak of by its name, see `eval.gates`.

    Rates and percentiles are of all that was asked now, in the collection and with the tag of the scope, and of one
    source alone if it names one; metrics are of golden questions where it names none. The state of the service is that
    of the whole run.
    """
    meant = scope.of(run.asked)
    now = meant if scope.source else tuple(one for one in run.asked if scope.holds(one))
    found = {name: round(figure.value, 9) for name, figure in figures(meant).items()} | rates(now)  # 0.8 shall be 0.8
    for name, percentiles in latencies(now).items():
        found |= {f"seconds_{name}_{p}": seconds for p, seconds in percentiles.items()}
    service = run.service
    return found | {
        "documents": float(service.documents), "passages": float(service.passages),
        "index_bytes": float(service.index_bytes), "waiting": float(service.waiting),
        "oldest_seconds": service.oldest_seconds, "failed_documents": float(service.failed),
    }  # fmt: skip


# -- changes ---------------------------------------------------------------------------------------------------------


def changes(run: Run, before: Sequence[Run], asked_for: Iterable[tuple[str, Scope]] = ()) -> list[Change]:
    """Return how the golden headline scores moved against the last run and against the mean of the last `HISTORY`.

    ``before`` are the runs before it, the newest first. A question is compared with itself: in the one run, or with its
    mean over all runs that have it. What else is ``asked_for`` is compared with the last run. Everything returned is
    one family of tests, corrected together.
    """
    if not before:
        return []
    wanted = dict.fromkeys([*((name, EVERYTHING) for name in HEADLINES), *asked_for])
    found = [_change(run, before[:1], name, LAST_RUN, scope) for name, scope in wanted]
    if len(before) > 1:
        found += [_change(run, before[:HISTORY], name, f"last {HISTORY} runs", EVERYTHING) for name in HEADLINES]
    return _corrected(found)


def between(first: Run, second: Run, metrics: Sequence[str] | None = None) -> list[Change]:
    """Return how far each metric of ``first`` is above ``second`` on the questions that both asked, source by source.

    Answers that people were given are not among them: those came from neither.
    """
    named = metrics or list(dict.fromkeys(name for one in first.asked for name in one.scores.values))
    scopes = [Scope(source) for source in Source if source is not Source.TRAFFIC]
    return _corrected([_change(first, [second], name, second.id, scope) for scope in scopes for name in named])


def _corrected(found: Sequence[Change | None]) -> list[Change]:
    kept = [change for change in found if change is not None]
    corrected = holm([change.p_value for change in kept])
    return [replace(change, p_value=p) for change, p in zip(kept, corrected, strict=True)]


def _change(run: Run, before: Sequence[Run], metric: str, versus: str, scope: Scope) -> Change | None:
    now = _values(run, metric, scope)
    then = [_values(earlier, metric, scope) for earlier in before]
    usual = {key: [values[key] for values in then if key in values] for key in now}
    pairs = [(now[key], math.fsum(values) / len(values)) for key, values in usual.items() if values]
    if not pairs:
        return None
    found = compare([first for first, _ in pairs], [second for _, second in pairs])
    used = sum(bool(now.keys() & values.keys()) for values in then)
    return Change(metric, versus, found.mean, found.low, found.high, found.p_value, len(pairs), used, scope)


def _values(run: Run, metric: str, scope: Scope) -> Mapping[str, float]:
    return {one.key: one.scores.values[metric] for one in scope.of(run.asked) if metric in one.scores.values}
