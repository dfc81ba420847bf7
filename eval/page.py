"""The report as one self-contained page: no script, no network, readable on paper and on a phone.

It tells in this order: pass or fail and why, how good the judge is, the headline scores and how they moved, retrieval,
answers and service by collection and by tag, where it goes wrong, the worst answers beside their evidence, the cost,
and what could not be scored. Questions, answers and documents are hostile: every text is escaped here, in one place.
Knows findings (`eval.findings`), and nothing of how they came about.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from eval.figures import EVERYTHING, HEADLINES, LAST_RUN, RETRIEVAL, Figure, by_collection, by_tag, latencies, rates
from eval.findings import Findings
from eval.plots import bar_plot, interval_plot, line_plot
from eval.runs import Asked, Change, Run, Source, Verdict
from rag.answers import Answer, Claim

#: Nothing may be loaded and nothing run, whatever a text says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
#: Characters without a shape that could steer a terminal or turn the reading direction around.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
#: Most failed questions in the list of each cause, and characters of a text.
LISTED, LONGEST = 25, 600

STYLE = """
:root { color-scheme: light; --ink: #1c2430; --soft: #55606e; --rule: #c9d0d8; --good: #12603a; --bad: #9b1c1c;
  --accent: #1d4f91; --panel: #f4f6f8; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; } p { margin: .4rem 0; } .soft { color: var(--soft); }
.verdict { border-left: .5rem solid; padding: .6rem 1rem; background: var(--panel); }
.passed { border-color: var(--good); } .passed strong { color: var(--good); }
.failed { border-color: var(--bad); } .failed strong { color: var(--bad); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; min-width: 50%; font-size: .92rem; }
caption { text-align: left; color: var(--soft); padding: .2rem 0; }
th, td { text-align: left; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid var(--rule); vertical-align: top;
  overflow-wrap: break-word; font-variant-numeric: tabular-nums; }
td svg { max-width: none; } table + table, .scroll + .scroll { margin-top: .8rem; } .whole { white-space: nowrap; }
.sure { font-weight: 600; } code { font-size: .9em; background: var(--panel); padding: 0 .2em; }
article { border: 1px solid var(--rule); border-radius: .4rem; padding: .8rem 1rem; margin: .8rem 0; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; } blockquote { margin: .3rem 0; padding-left: .7rem;
  border-left: 3px solid var(--rule); } .unsupported { border-left-color: var(--bad); }
svg { max-width: 100%; height: auto; vertical-align: middle; }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); } svg .scale { stroke: var(--rule); stroke-width: 2; }
svg .interval { stroke: var(--accent); stroke-width: 5; opacity: .45; }
svg .value { fill: var(--accent); } svg .line { fill: none; stroke: var(--accent); stroke-width: 2; }
svg .bar { fill: var(--accent); }
@media (max-width: 40rem) { .sides { grid-template-columns: 1fr; } caption { max-width: calc(100vw - 2rem); }
  .told { min-width: 38rem; } th, td { padding-right: .6rem; } }
@page { margin: 14mm; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } article, tr { break-inside: avoid; }
  table { font-size: 9pt; min-width: 0; } .told { min-width: 0; } .whole { white-space: normal; }
  th, td { padding-right: .4rem; } td svg { width: 5rem; }
  h2 { break-after: avoid; } .scroll { overflow: visible; } a { color: inherit; } }
"""


def as_html(found: Findings, answers: str | None = None) -> str:
    """Return the page. ``answers`` is the address below which the answers of the log are shown, if there is one."""
    parts = [
        _about(found.run),
        _verdict(found),
        _judge(found),
        _headlines(found),
        _section("Retrieval", _figures("Golden questions whose documents are known.", found.retrieval)),
        _section("Answers", _figures("Golden questions.", found.answering), *_others(found)),
        _service(found),
        _groups(found),
        _causes(found, answers),
        _worst(found, answers),
        _cost(found),
        _unscored(found),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Citewell report: {found.verdict.word.lower()}</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, parts))
        + "\n</main>\n</body>\n</html>\n"
    )


def text(words: object) -> str:
    """Return a text as it may stand in the page: escaped, and without characters that nobody can see."""
    return escape(_UNSEEN.sub("", str(words)), quote=True)


def _short(words: str) -> str:
    return text(words if len(words) <= LONGEST else f"{words[:LONGEST]}…")


# -- the sections ----------------------------------------------------------------------------------------------------


def _about(run: Run) -> str:
    facts = f"report {run.id} · generator {run.generator} · settings {run.settings_digest}"
    title = run.request.label or "Citewell quality report"
    return f'<h1>{text(title)}</h1><p class="soft">{run.ended_at:%Y-%m-%d %H:%M} UTC · {text(facts)}</p>'


def _verdict(found: Findings) -> str:
    verdict = found.verdict
    counts = ", ".join(f"{len(found.run.of(source))} {source.value}" for source in Source if found.run.of(source))
    reasons = "".join(f"<li>{text(reason)}</li>" for reason in verdict.reasons)
    asked = f"<p>{_gates(verdict)}, none of them broken.</p>" if verdict.gates else ""
    why = f"<ul>{reasons}</ul>" if reasons else asked
    return (
        f'<section class="verdict {verdict.word.lower()}" aria-label="Verdict"><p><strong>{verdict.word}</strong> · '
        f"{text(counts or 'no')} questions</p>{why}</section>"
    )


def _gates(verdict: Verdict) -> str:
    return f"{len(verdict.gates)} gate{'s' if len(verdict.gates) > 1 else ''}"


def _judge(found: Findings) -> str:
    agreement = found.run.agreement
    if agreement is None:
        said = "How far it agrees with people was not measured; <code>citewell eval judge</code> measures it."
        return _section("The judge", f"<p>Sentences were judged by {text(found.run.judge)}. {said}</p>")
    value, low, high = agreement.balanced_accuracy
    right, wrong = agreement.found + agreement.missed, agreement.passed + agreement.refused
    corrected = found.corrected
    behind = (
        f"<p>Behind these errors, {corrected.value:.1%} ({corrected.low:.1%} to {corrected.high:.1%}) of the sentences "
        "of the golden answers are supported, as far as those claims are like these.</p>"
        if corrected
        else ""
    )
    return _section(
        "The judge",
        f"<p>Sentences were judged by {text(agreement.judge)}. On {right + wrong:,} claims that people judged its "
        f"balanced accuracy was {value:.3f} ({low:.3f} to {high:.3f}): it called {agreement.found:,} of {right:,} "
        f"supported claims so, and {agreement.passed:,} of {wrong:,} unsupported ones "
        f"({agreement.measured_at:%Y-%m-%d}).</p>{behind}",
    )


def _headlines(found: Findings) -> str:
    told = [change for change in found.changes if change.scope == EVERYTHING]
    last = {change.metric: change for change in told if change.versus == LAST_RUN}
    usual = {change.metric: change for change in told if change.versus != LAST_RUN}
    runs = [*reversed(found.before), found.run]
    history = {name: _history(runs, name) for name in found.headlines}
    head = ["metric", "score", "95 % interval", "", "since the last run", "against earlier runs", "history"]
    rows = [
        [
            text(name), *_numbers(figure), interval_plot(figure.value, figure.low, figure.high, name),
            _change(last.get(name)), _change(usual.get(name)), line_plot(history[name], name),
        ]
        for name, figure in found.headlines.items()
    ]  # fmt: skip
    note = "Changes are over the questions that both runs asked; p values are corrected for all of them together."
    return _section("Headline scores", _table(note, head, rows) if rows else "<p>There are no golden questions.</p>")


def _history(runs: Sequence[Run], metric: str) -> list[float]:
    asked = [[one.scores.values.get(metric) for one in run.of(Source.GOLDEN)] for run in runs]
    scored = [[value for value in values if value is not None] for values in asked]
    return [sum(values) / len(values) for values in scored if values]


def _change(change: Change | None) -> str:
    if change is None:
        return '<span class="whole soft">none to compare</span>'
    told = f"{change.mean:+.3f} ({change.low:+.3f} to {change.high:+.3f}), p {change.p_value:.2g}"
    return f'<span class="whole{" sure" if change.is_sure else ""}">{told}</span>'


def _others(found: Findings) -> list[str]:
    told = {
        Source.TRAFFIC: "Traffic: answers that were given, sampled; nothing is known of what would be right.",
        Source.GENERATED: "Generated questions, which no person has looked at; never part of the golden scores.",
        Source.FOLDER: "The questions of a folder.",
    }
    return [_figures(told[source], named) for source, named in found.others.items()]


def _service(found: Findings) -> str:
    run, service = found.run, found.run.service
    waits = [[f"to {text(name)}", *(f"{p:.3f}" for p in told.values())] for name, told in latencies(run.asked).items()]
    shares = [[text(name.replace("_", " ")), f"{value:.1%}"] for name, value in rates(run.asked).items()]
    state = [
        ["documents that can be searched", f"{service.documents:,}"],
        ["passages", f"{service.passages:,}"],
        ["bytes of the indexes", f"{service.index_bytes:,}"],
        ["documents that wait to be read", f"{service.waiting:,}"],
        ["the oldest of them waits, seconds", f"{service.oldest_seconds:,.0f}"],
        ["documents that could not be read", f"{service.failed:,}"],
    ]
    return _section(
        "Service",
        _table("Seconds of an answer.", ["", "median", "p95", "p99"], waits) if waits else "",
        _table("Shares of the questions asked.", ["", "share"], shares) if shares else "",
        _table("When the report ended.", ["", "count"], state),
    )


def _groups(found: Findings) -> str:
    golden = found.run.of(Source.GOLDEN)
    names = [
        name for name in dict.fromkeys([*HEADLINES, *RETRIEVAL]) if name in found.headlines or name in found.retrieval
    ]
    grouped = [("collection", by_collection(golden, names)), ("tag", by_tag(golden, names))]
    tables = [
        _table(
            f"Golden questions by {kind}.",
            [kind, *(name.replace("_", " ") for name in names)],
            [_row(group, named, names) for group, named in rows.items()],
        )
        for kind, rows in grouped
        if rows
    ]
    return _section("By collection and by tag", *tables) if tables else ""


def _row(group: str, named: Mapping[str, Figure], names: Sequence[str]) -> list[str]:
    return [text(group), *(f"{named[name].value:.3f}" if name in named else "–" for name in names)]


def _causes(found: Findings, answers: str | None) -> str:
    if not found.failed:
        return _section("Where it goes wrong", "<p>No question is known to have failed.</p>")
    counts = {cause.value: count for cause, count in found.causes.items()}
    rows = [
        [
            text(one.cause.value if one.cause else "unknown"), _short(found.question(one) or f"question {one.id}"),
            text(one.why), _replay(one, answers),
        ]
        for one in _first_of_each(found.failed)
    ]  # fmt: skip
    left = len(found.failed) - len(rows)
    more = f'<p class="soft">{left} more failed questions are in the JSON report.</p>' if left else ""
    return _section(
        "Where it goes wrong",
        bar_plot(counts, "Failed golden questions by cause"),
        _table(
            "Each failed question, by the first step that lost its answer.",
            ["cause", "question", "why", "answer"],
            rows,
            "told",
        ),
        more,
    )


def _first_of_each(failed: Sequence[Asked]) -> list[Asked]:
    taken: dict[object, int] = {}
    kept = []
    for one in failed:
        taken[one.cause] = taken.get(one.cause, 0) + 1
        if taken[one.cause] <= LISTED:
            kept.append(one)
    return kept


def _replay(one: Asked, answers: str | None) -> str:
    if one.answer_id is None:
        return '<span class="soft">not in the log</span>'
    shown = f'<a href="{text(answers)}/{text(one.answer_id)}">explain</a> · ' if answers else ""
    return f"{shown}<code>citewell replay {text(one.answer_id)}</code>"


def _worst(found: Findings, answers: str | None) -> str:
    if not found.worst:
        return _section("The worst answers", "<p>No answer is known to be wrong or unsupported.</p>")
    return _section("The worst answers", *(_side_by_side(found, one, answers) for one in found.worst))


def _side_by_side(found: Findings, one: Asked, answers: str | None) -> str:
    logged = found.answers.get(one.answer_id or "")
    scores = ", ".join(f"{name} {value:.2f}" for name, value in one.scores.values.items())
    head = f"<h3>{_short(found.question(one) or f'question {one.id}')}</h3>"
    about = (
        f'<p class="soft">{text(one.source.value)} · {text(one.collection)} · {text(scores)}</p>'
        f"<p>{text(one.why)} {_replay(one, answers)}</p>"
    )
    if logged is None or logged.texts is None:
        gone = "a document it rests on was purged" if logged and logged.purged_at else "it is not in the log"
        return f"<article>{head}{about}<p>Its words can not be shown: {gone}.</p></article>"
    answer = logged.texts.answer
    said = "".join(map(_claim, answer.claims)) or f"<p>{_short(answer.text)}</p>"
    return (
        f'<article>{head}{about}<div class="sides"><div><h4>What was said</h4>{said}</div>'
        f"<div><h4>What it rests on</h4>{_evidence(answer)}</div></div></article>"
    )


def _claim(claim: Claim) -> str:
    kind = "" if claim.supported or not claim.checkable else ' class="unsupported"'
    numbers = ", ".join(f"[{citation.number}]" for citation in claim.citations)
    told = f'<span class="soft">support {claim.support:.2f} {numbers}</span>' if claim.checkable else ""
    return f"<blockquote{kind}>{_short(claim.text)}<br>{told}</blockquote>"


def _evidence(answer: Answer) -> str:
    cited = {(c.number, c.quote): c for c in answer.citations}
    quotes = [
        f'<blockquote>{_short(c.quote)}<br><span class="soft">[{c.number}] {text(c.document)}'
        f"{f', page {c.page}' if c.page else ''}</span></blockquote>"
        for c in cited.values()
    ]
    if quotes:
        return "".join(quotes)
    shown = [
        f'<blockquote>{_short(p.text)}<br><span class="soft">{text(p.document)}</span></blockquote>'
        for p in answer.passages[:3]
    ]
    return (
        "<p>Nothing was cited. The best passages were:</p>" + "".join(shown)
        if shown
        else "<p>No passage was found.</p>"
    )


def _cost(found: Findings) -> str:
    rows = [[text(name.replace("_", " ")), f"{value:,}"] for name, value in found.cost.items()]
    return _section("Cost", _table("Of this report.", ["", "amount"], rows))


def _unscored(found: Findings) -> str:
    left_out = "".join(f"<li>{text(reason)}</li>" for reason in found.run.left_out)
    rows = [[_short(reason), f"{count:,}"] for reason, count in found.unscored.items()]
    table = _table("Answers and scores that are missing.", ["what and why", "questions"], rows) if rows else ""
    told = f"<ul>{left_out}</ul>" if left_out else ""
    if found.drifted:
        names = [[text(one.collection), _short(found.question(one) or one.id)] for one in found.drifted]
        caption = "Golden questions whose documents have changed; `citewell golden check` says which."
        table += _table(caption, ["collection", "question"], names)
    return _section(
        "What could not be scored", table, told or ("" if rows else "<p>Everything was asked and scored.</p>")
    )


# -- the pieces ------------------------------------------------------------------------------------------------------


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{text(title)}</h2>{''.join(parts)}</section>"


def _figures(caption: str, named: Mapping[str, Figure]) -> str:
    if not named:
        return "<p>Nothing could be measured.</p>"
    rows = [
        [text(name), *_numbers(figure), f"{figure.count:,}", interval_plot(figure.value, figure.low, figure.high, name)]
        for name, figure in named.items()
    ]
    return _table(caption, ["metric", "score", "95 % interval", "questions", ""], rows)


def _numbers(figure: Figure) -> tuple[str, str]:
    return f"{figure.value:.3f}", f'<span class="whole">{figure.low:.3f} to {figure.high:.3f}</span>'


def _table(caption: str, head: Iterable[str], rows: Iterable[Sequence[str]], kind: str = "figures") -> str:
    """Return a table of cells that are escaped already; the first of each row names it. ``kind`` is its class."""
    names = "".join(f'<th scope="col">{text(name)}</th>' if name else "<td></td>" for name in head)
    lines = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    told = text(caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{told}"><table class="{kind}"><caption>{told}'
        f"</caption><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table></div>"
    )
