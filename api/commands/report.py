"""``citewell report``: how good the answers are, with what changed and where it goes wrong; run, shown, compared.

Knows how the findings are shown in a terminal; ``eval`` makes them, and the page.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.evaluate import tenths
from api.commands.options import AsJson, Data, read_used_settings
from api.commands.terminal import clean, say, say_json, table, wrapped
from rag.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eval.figures import Change, Figure
    from eval.findings import Findings
    from eval.gates import Gate
    from rag.catalog import Catalog
    from rag.settings import Settings

ReportId = Annotated[str, typer.Argument(metavar="REPORT", help="The id of the report.")]
Gates = Annotated[
    Path | None,
    typer.Option("--gates", metavar="FILE", help="TOML file of what it must reach; by default the setting's."),
]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write it as a page of its own.")]
Metrics = Annotated[
    Path | None, typer.Option("--prometheus", metavar="FILE", help="Write its figures in Prometheus' text format.")
]
#: Failed questions that are shown.
SHOWN = 10


def run_report(
    ctx: typer.Context,
    collections: Annotated[
        list[str] | None,
        typer.Option("--collection", "-c", metavar="NAME", help="Ask about it alone; give it again for one more."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Judge answers given since then, e.g. 2026-11-01; else a day."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="Ask at most N questions of each source.")
    ] = None,
    label: Annotated[
        str, typer.Option("--label", metavar="TEXT", help="What is tried; only reports with the same one are compared.")
    ] = "",
    gates: Gates = None,
    html: Html = None,
    prometheus: Metrics = None,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Ask the golden questions, judge yesterday's answers, and say whether all is well.

    Prints pass or fail and why, the headline scores with 95 % intervals and how they moved against the last report, and
    which step of the journey each failed question is put down to. Exit status 1 if a gate is not passed. The report is
    kept in the catalog; a run that was interrupted is finished by the next worker.
    """
    settings = read_used_settings(ctx, data)
    chosen = _gates(settings, gates)
    from eval.report import LEASE, run_report, usual_parts
    from eval.runs import Request, plain
    from rag.assembly import open_citewell

    request = Request(tuple(collections or ()), _moment(since), limit, label)
    owner = f"command-{datetime.now(UTC).timestamp()}"
    with open_citewell(settings) as citewell:
        for name in request.collections:
            citewell.store.catalog.collection(name, counted=False)
        asked = citewell.store.catalog.open_report(plain(request))
        reported = citewell.store.catalog.claim_report(owner, LEASE, asked.id) if asked else None
        if reported is None:
            raise AssertionError("a report that was just asked for waits to be claimed")
        with usual_parts(citewell) as parts:
            run_report(citewell, reported, owner, parts, progress=tenths("Asked", "questions"))
        _tell(citewell.store.catalog, reported.id, chosen, html, prometheus, as_json=as_json)


def list_reports(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1000, help="Most reports.")] = 20,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """List the last reports, the newest first."""
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        found = store.catalog.list_reports(limit=limit)
    if as_json:
        from api.report_schemas import ReportReply

        say_json({"reports": [ReportReply.of(one).model_dump(mode="json") for one in found]})
        return
    if not found:
        say("There are no reports.")
        return
    rows = [
        (f"{one.created_at:%Y-%m-%d %H:%M}", one.id, one.state.value, one.answered, one.request.get("label") or "")
        for one in found
    ]
    say(table(("CREATED", "REPORT", "STATE", "QUESTIONS", "LABEL"), rows))


def show_report(
    ctx: typer.Context,
    report: ReportId,
    gates: Gates = None,
    html: Html = None,
    prometheus: Metrics = None,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Show a report again, or write it as a page. Exit status 1 if a gate is not passed."""
    from rag.store import open_store

    settings = read_used_settings(ctx, data)
    chosen = _gates(settings, gates)
    with open_store(settings) as store:
        _tell(store.catalog, report, chosen, html, prometheus, as_json=as_json)


def compare_reports(
    ctx: typer.Context,
    first: Annotated[str, typer.Argument(metavar="A", help="The id of a report.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The id of the one to compare it with.")],
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Compare two reports, of two settings or generators, on the questions that both asked.

    Prints for each metric how far A is above B, with the 95 % interval and the p value of a paired randomisation test,
    corrected for all metrics together.
    """
    from eval.figures import between
    from eval.report import load_run
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        one, other = (load_run(store.catalog, store.catalog.report(name)) for name in (first, second))
    moved = between(one, other)
    if not moved:
        raise BadInput("The two reports have no scored question in common.")
    if as_json:
        about = [{"id": run.id, "label": run.request.label, "generator": run.generator} for run in (one, other)]
        say_json({"reports": about, "differences": [change.as_json() for change in moved]})
        return
    say(f"A: {clean(one.request.label or one.id)}, generator {clean(one.generator)}, settings {one.settings_digest}")
    say(f"B: {clean(other.request.label or other.id)}, generator {clean(other.generator)}, "
        f"settings {other.settings_digest}")  # fmt: skip
    rows = [[change.metric, *_change(change), f"{change.count}"] for change in moved]
    say(table(["metric", "A - B", "95 % interval", "p", "questions"], rows))


def _gates(settings: Settings, file: Path | None) -> tuple[Gate, ...] | None:
    from eval.gates import read_gates

    chosen = file or settings.report.gates
    return read_gates(chosen) if chosen else None


def _moment(given: str | None) -> datetime | None:
    if given is None:
        return None
    try:
        found = datetime.fromisoformat(given)
    except ValueError as error:
        raise BadInput(f"--since is {given[:50]!r}; write a date or time as ISO 8601 has it, 2026-11-01.") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _tell(
    catalog: Catalog,
    report_id: str,
    gates: Sequence[Gate] | None,
    html: Path | None,
    prometheus: Path | None,
    *,
    as_json: bool,
) -> None:
    """Print a report and write its files; ends the command with status 1 if it has not passed."""
    from eval import findings
    from eval.page import as_html

    found = findings.findings_of(catalog, catalog.report(report_id), gates)
    if html:
        _write(html, as_html(found))
    if prometheus:
        _write(prometheus, findings.as_prometheus(found))
    if as_json:
        say_json(findings.as_json(found))
    else:
        say(_lines(found))
    if not found.verdict.passed:
        raise typer.Exit(1)


def _write(file: Path, content: str) -> None:
    try:
        file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{file} can not be written ({error.strerror}).") from error


def _lines(found: Findings) -> list[str]:
    verdict = found.verdict
    lines = [f"{'Passed' if verdict.passed else 'Failed'}: report {found.run.id}"]
    lines += [line for reason in verdict.reasons for line in wrapped(clean(reason), indent=2, hanging=2)]
    lines += ["", *_scores(found.headlines, found.changes)]
    failed = [f"{count} {cause.value}" for cause, count in found.causes.items() if count]
    if failed:
        lines += ["", f"Where it goes wrong: {', '.join(failed)}."]
    for one in found.failed[:SHOWN]:
        cause = one.cause.value if one.cause else "unknown"
        shown = clean(found.question(one) or one.id)
        lines += wrapped(f"{cause}: {shown} ({one.answer_id or 'not in the log'})", indent=2, hanging=2)
    cost = found.cost
    tokens = f"{cost['prompt_tokens'] + cost['completion_tokens'] + cost['judge_tokens']:,.0f} tokens"
    lines += ["", f"{len(found.run.asked):,} questions in {cost['seconds']:,.0f} seconds, {tokens}."]
    for reason in [*found.run.left_out, *(f"{count} x {why}" for why, count in found.unscored.items())]:
        lines += wrapped(f"Not scored: {clean(reason)}", hanging=2)
    return lines


def _scores(headlines: Mapping[str, Figure], changes: Sequence[Change]) -> list[str]:
    from eval.figures import LAST_RUN

    last = {change.metric: change for change in changes if change.versus == LAST_RUN}
    rows = [
        [name, f"{figure.value:.3f}", f"{figure.low:.3f} to {figure.high:.3f}", *_change(last.get(name))]
        for name, figure in headlines.items()
    ]
    return table(["metric", "score", "95 % interval", "since the last", "95 % interval", "p"], rows)


def _change(change: Change | None) -> list[str]:
    if change is None:
        return ["", "", ""]
    return [f"{change.mean:+.3f}", f"{change.low:+.3f} to {change.high:+.3f}", f"{change.p_value:.3f}"]
