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
from api.commands.terminal import clean, counted, say, say_json, table, wrapped
from rag.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eval.comparison import Comparison
    from eval.figures import Figure
    from eval.findings import Findings
    from eval.gates import Gate
    from eval.runs import Change
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
#: Failed questions that are shown, and characters of an answer.
SHOWN, LONGEST = 10, 300


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
        with usual_parts(citewell, chosen) as parts:
            questions, answers = tenths("Asked", "questions"), tenths("Judged", "answers")
            run_report(citewell, reported, owner, parts, progress=questions, judging=answers)
        _tell(citewell.store.catalog, reported.id, None, html, prometheus, as_json=as_json)


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
    """Show a report again, or write it as a page.

    It says what it said when it ended, whatever the gates are now; with --gates, what these would say of it. Exit
    status 1 if a gate is not passed.
    """
    from eval.gates import read_gates
    from rag.store import open_store

    chosen = read_gates(gates) if gates else None
    with open_store(read_used_settings(ctx, data)) as store:
        _tell(store.catalog, report, chosen, html, prometheus, as_json=as_json)


def delete_report(ctx: typer.Context, report: ReportId, data: Data = None) -> None:
    """Remove a report with its figures; the answers that it asked for stay in the log."""
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        store.catalog.delete_report(report)
    say(f"Removed report {report}.")


def compare_reports(
    ctx: typer.Context,
    first: Annotated[str, typer.Argument(metavar="A", help="The id of a report.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The id of the one to compare it with.")],
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Compare two reports, of two settings or generators, on the questions that both asked.

    Prints for each metric what A and B have, how far A is above B, with the 95 % interval and the p value of a paired
    randomisation test, corrected for all metrics together; then the questions that differ most, side by side. What
    `citewell eval retrieval` and `eval answers` have kept under a label can be compared as well.
    """
    from eval.comparison import compare_runs
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        found = compare_runs(store.catalog, first, second)
    if as_json:
        say_json(found.as_json())
        return
    say(_compared(found))


def _compared(found: Comparison) -> list[str]:
    from eval.comparison import labels

    runs = {"A": found.first, "B": found.second}
    lines = []
    for name, label in labels(found).items():
        about = f"{name}: {clean(label)}, generator {clean(runs[name].generator)}, {runs[name].settings_digest}"
        lines += wrapped(about, hanging=3)
    rows = [
        [
            f"{row.change.metric}{_source(row.change)}", f"{row.first:.3f}", f"{row.second:.3f}",
            *_change(row.change), f"{row.change.count}",
        ]
        for row in found.rows
    ]  # fmt: skip
    lines += ["", *table(["metric", "A", "B", "A - B", "95 % interval", "p", "questions"], rows)]
    if found.apart:
        lines.append(f"{counted(found.apart, 'question')} that only one of them asked left out.")
    for one in found.differing:
        lines += ["", *wrapped(clean(one.question or one.id))]
        for name, side in (("A", one.first), ("B", one.second)):
            cause = f", {side.cause}" if side.cause else ""
            said = f": {clean(side.said)[:LONGEST]}" if side.said else ""
            lines += wrapped(f"{name} {one.metric} {side.score:.2f}{cause}{said}", indent=2, hanging=2)
    return lines


def _source(change: Change) -> str:
    from eval.runs import Source

    found = change.scope.source
    return f" ({found.value})" if found is Source.GENERATED else ""


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
    gates = f", {counted(len(verdict.gates), 'gate')}" if verdict.gates else ""
    lines = [f"{verdict.word}: report {found.run.id}{gates}"]
    lines += [line for reason in verdict.reasons for line in wrapped(clean(reason), indent=2, hanging=2)]
    if found.headlines:
        lines += ["", *_scores(found.headlines, found.changes)]
    for source, figures in found.others.items():
        lines += ["", *_figures(source.value, figures)]
    if found.failed:
        failed = [f"{count} {cause.value}" for cause, count in found.causes.items() if count]
        golden = f"; of golden questions {', '.join(failed)}" if failed else "; no golden one"
        lines += ["", *wrapped(f"Where it goes wrong: {counted(len(found.failed), 'question')}{golden}.")]
    for one in found.failed[:SHOWN]:
        cause = one.cause.value if one.cause else "unknown"
        shown = f"{cause}, {one.source.value}: {clean(found.question(one) or one.id)}"
        lines += wrapped(f"{shown} ({one.answer_id or 'not in the log'})", indent=2, hanging=2)
    if len(found.failed) > SHOWN:
        lines.append(f"  and {len(found.failed) - SHOWN:,} more; --json and --html show all.")
    if found.drifted:
        told = f"{counted(len(found.drifted), 'golden question')} whose documents have changed"
        lines += ["", *wrapped(f"{told}; `citewell golden check` says which.")]
    cost = found.cost
    tokens = f"{cost['prompt_tokens'] + cost['completion_tokens'] + cost['judge_tokens']:,.0f} tokens"
    lines += ["", f"{len(found.run.asked):,} questions in {cost['seconds']:,.0f} seconds, {tokens}."]
    for reason in [*found.run.left_out, *(f"{count} x {why}" for why, count in found.unscored.items())]:
        lines += wrapped(f"Not scored: {clean(reason)}", hanging=2)
    return lines


def _scores(headlines: Mapping[str, Figure], changes: Sequence[Change]) -> list[str]:
    from eval.figures import EVERYTHING, LAST_RUN

    told = (change for change in changes if change.scope == EVERYTHING)
    last = {change.metric: change for change in told if change.versus == LAST_RUN}
    rows = [
        [name, f"{figure.value:.3f}", f"{figure.low:.3f} to {figure.high:.3f}", *_change(last.get(name))]
        for name, figure in headlines.items()
    ]
    return table(["golden questions", "score", "95 % interval", "since the last", "95 % interval", "p"], rows)


def _figures(source: str, figures: Mapping[str, Figure]) -> list[str]:
    rows = [
        [name, f"{figure.value:.3f}", f"{figure.low:.3f} to {figure.high:.3f}", f"{figure.count}"]
        for name, figure in figures.items()
    ]
    return table([f"{source} questions", "score", "95 % interval", "questions"], rows)


def _change(change: Change | None) -> list[str]:
    if change is None:
        return ["", "", ""]
    return [f"{change.mean:+.3f}", f"{change.low:+.3f} to {change.high:+.3f}", f"{change.p_value:.3f}"]
