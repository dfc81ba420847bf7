"""Runs made by hand for tests of what is told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from eval.figures import changes
from eval.findings import Findings
from eval.gates import Gate, compared, judged
from eval.runs import Asked, Request, Run, Scores, Source
from rag.logged import Logged

START = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)


def asked(key: str, values: Mapping[str, float] | None = None, **more: Any) -> Asked:
    scores = Scores(values or {}, more.pop("failures", {}))
    return Asked(key, key, more.pop("source", Source.GOLDEN), more.pop("collection", "demo"), scores=scores, **more)


def run_of(every: Sequence[Asked], name: str = "a" * 32, **more: Any) -> Run:
    end = START + timedelta(seconds=90)
    return Run(name, START, end, more.pop("request", Request()), "settings", "reader", "judge", tuple(every), **more)


def findings(
    run: Run,
    before: Sequence[Run] = (),
    gates: Sequence[Gate] | None = None,
    answers: Mapping[str, Logged] | None = None,
    questions: Mapping[str, str] | None = None,
) -> Findings:
    moved = changes(run, before, compared(gates))
    verdict = judged(gates, run, moved)
    return Findings(run, tuple(before), verdict, tuple(moved), answers or {}, questions or {})
