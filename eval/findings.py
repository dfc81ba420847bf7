"""What a run says, worked out once for all the forms in which it is told: figures, changes, verdict, causes, cost.

`findings_of` puts them together, `as_json` tells them to programs and `as_prometheus` to a monitoring system; the page
is in `eval.page`. Texts of answers come from the log when this is made: what had to go from there is gone here too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from eval.correction import corrected_rate
from eval.figures import (
    ANSWERS,
    HEADLINES,
    HISTORY,
    RETRIEVAL,
    Figure,
    by_collection,
    by_tag,
    changes,
    figures,
    latencies,
    rates,
)
from eval.gates import Gate, compared, judged
from eval.history import load_run, runs_before
from eval.judging import Confusion
from eval.runs import Asked, Cause, Change, Run, Source, Verdict
from rag.catalog import Catalog
from rag.errors import NotFound
from rag.logged import Logged
from rag.reported import Reported

#: Most answers in the list of the worst.
WORST = 10
_GROUPED = tuple(dict.fromkeys([*HEADLINES, *RETRIEVAL]))


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that is told of a run. ``before`` are earlier runs, the newest first.

    Of what is shown one by one, ``answers`` has what the log still has of the answers, and ``questions`` the texts of
    golden questions that are still there, both by id.
    """

    run: Run
    before: tuple[Run, ...]
    verdict: Verdict
    changes: tuple[Change, ...]
    answers: Mapping[str, Logged]
    questions: Mapping[str, str]

    @property
    def headlines(self) -> dict[str, Figure]:
        return figures(self.run.of(Source.GOLDEN), HEADLINES)

    @property
    def retrieval(self) -> dict[str, Figure]:
        return figures(self.run.of(Source.GOLDEN), RETRIEVAL)

    @property
    def answering(self) -> dict[str, Figure]:
        golden = self.run.of(Source.GOLDEN)
        measured = dict.fromkeys([*ANSWERS, *(name for one in golden for name in one.scores.values)])
        return figures(golden, [name for name in measured if name not in RETRIEVAL])

    @property
    def corrected(self) -> Figure | None:
        """The share of supported sentences as it is behind the judge's errors; None if these were not measured."""
        agreement, golden = self.run.agreement, [one for one in self.run.of(Source.GOLDEN) if one.claims]
        if agreement is None or not golden:
            return None
        counts = Confusion(agreement.found, agreement.missed, agreement.passed, agreement.refused)
        rate = corrected_rate([(one.supported, one.claims) for one in golden], counts)
        return None if math.isnan(rate.value) else Figure("supported", rate.value, rate.low, rate.high, len(golden))

    @property
    def others(self) -> dict[Source, dict[str, Figure]]:
        """The figures of questions that are not golden, by their source."""
        found = {source: figures(self.run.of(source)) for source in Source if source is not Source.GOLDEN}
        return {source: named for source, named in found.items() if named}

    @property
    def failed(self) -> list[Asked]:
        """The failed questions in the order of the journey's steps, those without a cause last."""
        order = {cause: place for place, cause in enumerate(Cause)}
        found = [one for one in self.run.asked if one.failed]
        return sorted(found, key=lambda one: order[one.cause] if one.cause else len(order))

    @property
    def causes(self) -> dict[Cause, int]:
        counts = Counter(one.cause for one in self.run.of(Source.GOLDEN) if one.failed)
        return {cause: counts[cause] for cause in Cause}

    @property
    def drifted(self) -> list[Asked]:
        """The golden questions that somebody should look at, since their documents have changed."""
        return [one for one in self.run.of(Source.GOLDEN) if one.drifted]

    @property
    def worst(self) -> list[Asked]:
        return worst(self.run.asked)

    @property
    def unscored(self) -> dict[str, int]:
        """How many answers or scores are missing, by what is missing and why."""
        reasons = Counter(f"no answer: {one.error}" for one in self.run.asked if one.error)
        for one in self.run.asked:
            reasons.update(f"{metric}: {why}" for metric, why in one.scores.failures.items())
        return dict(reasons.most_common())

    @property
    def cost(self) -> dict[str, float]:
        asked = self.run.asked
        return {
            "seconds": round(self.run.seconds, 1),
            "seconds_answering": round(sum(one.seconds.get("end", 0.0) for one in asked), 1),
            "prompt_tokens": sum(one.prompt_tokens for one in asked),
            "completion_tokens": sum(one.completion_tokens for one in asked),
            "judge_tokens": sum(one.judge_tokens for one in asked),
        }

    def question(self, one: Asked) -> str | None:
        """Return the text of a question, None where it is no longer known."""
        logged = self.answers.get(one.answer_id or "")
        plan = logged.texts.plan if logged and logged.texts else None
        return plan.question if plan else self.questions.get(one.id)


def findings_of(catalog: Catalog, reported: Reported, gates: Sequence[Gate] | None = None) -> Findings:
    """Return all that is told of a run of the catalog; raises `Conflict` if it has not come to its end.

    Its verdict and its changes are those of the moment when it ended, but where other ``gates`` are given.
    """
    run, before = load_run(catalog, reported), tuple(runs_before(catalog, reported, HISTORY))
    moved, verdict = run.changes, run.verdict
    if gates is not None:
        moved = tuple(changes(run, before, compared(gates)))
        verdict = judged(gates, run, moved)
    shown = [*worst(run.asked), *(one for one in run.asked if one.failed or one.drifted)]
    answers, questions = {}, {}
    for one in shown:
        with suppress(NotFound):  # its time in the log is over
            if one.answer_id:
                answers[one.answer_id] = catalog.answer(one.answer_id)
        with suppress(NotFound):
            if one.source is Source.GOLDEN:
                questions[one.id] = catalog.golden(one.id).question
    return Findings(run, before, verdict, moved, answers, questions)


def worst(asked: Sequence[Asked], most: int = WORST) -> list[Asked]:
    """Return the answers that are most wrong: failed ones first, then by the mean of what was scored of the answer."""
    scored = [one for one in asked if one.scores.values and (one.failed or one.scores.values.get("supported", 1) < 1)]
    return sorted(scored, key=lambda one: (one.failed is not True, _goodness(one)))[:most]


def _goodness(one: Asked) -> float:
    values = [one.scores.values[name] for name in ("correctness", "supported") if name in one.scores.values]
    return sum(values) / len(values) if values else 1.0


# -- for programs ----------------------------------------------------------------------------------------------------


def as_json(found: Findings) -> dict[str, Any]:
    """Return the whole report as one object of plain JSON, in the order of the page."""
    run, golden = found.run, found.run.of(Source.GOLDEN)
    return {
        "id": run.id,
        "started_at": run.started_at.isoformat(),
        "ended_at": run.ended_at.isoformat(),
        "label": run.request.label,
        "settings": run.settings_digest,
        "generator": run.generator,
        "verdict": found.verdict.as_json(),
        "judge": {
            "name": run.judge,
            "agreement": _agreement(run),
            "corrected_supported": found.corrected.as_json() if found.corrected else None,
        },
        "headlines": _figures(found.headlines),
        "changes": [change.as_json() for change in found.changes],
        "retrieval": _figures(found.retrieval),
        "answers": _figures(found.answering),
        "service": {**rates(run.asked), "latency_seconds": latencies(run.asked), **asdict(run.service)},
        "collections": {name: _figures(named) for name, named in by_collection(golden, _GROUPED).items()},
        "tags": {name: _figures(named) for name, named in by_tag(golden, _GROUPED).items()},
        "other_sources": {source.value: _figures(named) for source, named in found.others.items()},
        "causes": {cause.value: count for cause, count in found.causes.items()},
        "failed": [_asked(found, one) for one in found.failed],
        "worst": [one.answer_id for one in found.worst],
        "cost": found.cost,
        "drifted": [{"id": one.id, "question": found.question(one)} for one in found.drifted],
        "questions": {source.value: len(run.of(source)) for source in Source},
        "unscored": found.unscored,
        "left_out": list(run.left_out),
    }


def _figures(named: Mapping[str, Figure]) -> dict[str, Any]:
    return {name: figure.as_json() for name, figure in named.items()}


def _agreement(run: Run) -> dict[str, Any] | None:
    found = run.agreement
    return None if found is None else asdict(found) | {"measured_at": found.measured_at.isoformat()}


def _asked(found: Findings, one: Asked) -> dict[str, Any]:
    return {
        "id": one.id, "source": one.source.value, "collection": one.collection, "tags": list(one.tags),
        "question": found.question(one), "answer_id": one.answer_id, "cause": one.cause.value if one.cause else None,
        "why": one.why, "scores": dict(one.scores.values),
    }  # fmt: skip


# -- for a monitoring system -----------------------------------------------------------------------------------------


def as_prometheus(found: Findings) -> str:
    """Return the report in Prometheus' text format: the scores of each source and group, causes, rates, cost.

    (https://prometheus.io/docs/instrumenting/exposition_formats, version 0.0.4.)
    """
    run, golden = found.run, found.run.of(Source.GOLDEN)
    scores = [({"source": "golden", "metric": name}, figure.value) for name, figure in figures(golden).items()]
    for source, named in found.others.items():
        scores += [({"source": source.value, "metric": name}, figure.value) for name, figure in named.items()]
    groups = [
        ({kind: group, "metric": name}, figure.value)
        for kind, grouped in (("collection", by_collection(golden, _GROUPED)), ("tag", by_tag(golden, _GROUPED)))
        for group, named in grouped.items()
        for name, figure in named.items()
    ]
    waits = [
        ({"until": name, "quantile": str(int(p[1:]) / 100)}, seconds)
        for name, percentiles in latencies(run.asked).items()
        for p, seconds in percentiles.items()
    ]
    causes = [({"cause": cause.value}, float(count)) for cause, count in found.causes.items()]
    service = [({"figure": name}, float(value)) for name, value in asdict(run.service).items()]
    families: list[tuple[str, str, Sequence[tuple[Mapping[str, str], float]]]] = [
        ("passed", "Whether the last report passed its gates.", [({}, float(found.verdict.passed))]),
        ("ended_seconds", "When the last report ended, as a Unix time.", [({}, run.ended_at.timestamp())]),
        ("score", "Mean of a metric over the questions of a source.", scores),
        ("group_score", "Mean of a metric over the golden questions of a collection or tag.", groups),
        ("failures", "Failed golden questions by cause.", causes),
        ("rate", "Shares of the answers.", [({"rate": name}, value) for name, value in rates(run.asked).items()]),
        ("answer_seconds", "Seconds of an answer.", waits),
        ("service", "The state of the service.", service),
        ("cost", "What the report took.", [({"unit": name}, float(value)) for name, value in found.cost.items()]),
    ]  # fmt: skip
    return "".join(_family(f"citewell_report_{name}", text, rows) for name, text, rows in families if rows)


def _family(name: str, text: str, rows: Sequence[tuple[Mapping[str, str], float]]) -> str:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
    lines += [f"{name}{_labels(labels)} {value:.10g}" for labels, value in rows]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_label(value)}"' for name, value in labels.items()) + "}"


def _label(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
