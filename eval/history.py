"""Runs as the catalog keeps them: their figures question by question, and the verdict of the moment when they ended.

A run of a folder in BEIR layout, which `citewell eval` made elsewhere, is kept beside those of the report and can be
compared as they are. Knows no question's text and no metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.runs import Agreement, Asked, Change, Request, Run, Service, Verdict, plain, record_of
from rag.catalog import Catalog
from rag.errors import Conflict
from rag.reported import Progress, Reported, ReportItem


def summary_of(run: Run) -> dict[str, Any]:
    """Return all of a run but its questions and what the catalog's row says of it, as plain JSON."""
    return {
        "generator": run.generator,
        "judge": run.judge,
        "service": plain(run.service),
        "agreement": plain(run.agreement) if run.agreement else None,
        "left_out": list(run.left_out),
        "asked": len(run.asked),
        "changes": [plain(change) for change in run.changes],
        "verdict": plain(run.verdict),
    }


def keep_run(catalog: Catalog, run: Run) -> Reported:
    """Keep a run that was made elsewhere; its id is a new one."""
    items = [ReportItem(number, one.answer_id, plain(one)) for number, one in enumerate(run.asked)]
    return catalog.add_report(plain(run.request), summary_of(run), run.settings_digest, items, run.started_at)


def load_run(catalog: Catalog, reported: Reported) -> Run:
    """Return a run that the catalog has; raises `Conflict` if it has not come to its end."""
    if reported.state is not Progress.DONE or reported.summary is None or reported.ended_at is None:
        reason = f": {reported.error}" if reported.error else ""
        raise Conflict(f"The report {reported.id} has no figures; it is {reported.state}{reason}".rstrip(".") + ".")
    summary = reported.summary
    return Run(
        reported.id, reported.started_at or reported.created_at, reported.ended_at,
        record_of(Request, reported.request), reported.settings_digest or "",
        summary["generator"], summary["judge"],
        tuple(record_of(Asked, item.data) for item in catalog.report_items(reported.id)[: summary["asked"]]),
        record_of(Service, summary["service"]),
        record_of(Agreement, summary["agreement"]) if summary["agreement"] else None,
        tuple(summary["left_out"]),
        tuple(record_of(Change, change) for change in summary["changes"]),
        record_of(Verdict, summary["verdict"]),
    )  # fmt: skip


def runs_before(catalog: Catalog, reported: Reported, most: int) -> list[Run]:
    """Return up to ``most`` earlier runs that asked for the same collections, label and folder, the newest first."""
    found = catalog.list_reports(state=Progress.DONE, before=reported.created_at, limit=4 * most)
    same = [one for one in found if _about(one) == _about(reported)]
    return [load_run(catalog, one) for one in same[:most]]


def _about(reported: Reported) -> Sequence[object]:
    request = record_of(Request, reported.request)
    return sorted(request.collections), request.label, request.folder
