"""``citewell eval answers``: how good the answers are, with what they cite, and how honest the silence is.

Knows how the numbers are shown; ``eval`` computes them.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.evaluate import Label, keep, say_kept, tenths
from api.commands.options import AsJson, Data, read_settings
from api.commands.terminal import counted, say, say_json, table, wrapped

if TYPE_CHECKING:
    from eval.answering import Evaluation


def evaluate_answers(
    ctx: typer.Context,
    beir: Annotated[
        Path,
        typer.Option(
            "--beir",
            metavar="FOLDER",
            help="Holds corpus.jsonl[.gz], queries.jsonl[.gz] and qrels.tsv; its queries have answers, or answerable "
            "false.",
        ),
    ],
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="Ask N of them only: by chance, but always the same ones."),
    ] = None,
    label: Label = None,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Measure the answers to a folder of questions of which the answers are known.

    Every question goes all the way through the product, with the generator that the settings choose. Prints F1 and
    exact match as SQuAD 2.0 counts them, whether a known answer stands in the text, which of the passages that people
    judged relevant are cited, whether each quote stands word for word at its place, how well abstentions fall on the
    questions that nothing answers, and how long it takes to the first word and to the last; with 95 % bootstrap
    intervals over the questions. A run that was interrupted goes on where it was.
    """
    settings = read_settings(ctx, data)
    from eval.answering import evaluate_answers as evaluate

    embedded, asked = tenths("Embedded", "passages or reports"), tenths("Asked", "questions")
    began = datetime.now(UTC)
    found = evaluate(settings, beir, limit=limit, embedded=embedded, asked=asked)
    kept = None
    if label is not None:
        from eval.kept import run_of_answers

        kept = keep(settings, run_of_answers(settings, beir, label, found, began))
    if as_json:
        say_json(found.as_json() | ({"report": kept} if kept else {}))
        return
    say(_figures(found))
    say()
    say(_seconds(found))
    say(_about(found))
    say_kept(kept)


def _figures(found: Evaluation) -> list[str]:
    from eval.answer_metrics import REASONS

    figures = found.metrics()
    known = {name: figure for name, figure in figures.items() if not math.isnan(figure.value)}
    rows = [[name, f"{figure.value:.4f}", f"{figure.low:.4f} to {figure.high:.4f}"] for name, figure in known.items()]
    missing: dict[str, list[str]] = {}
    for name in figures.keys() - known.keys():
        missing.setdefault(REASONS[name], []).append(name)
    left_out = [line for reason, names in sorted(missing.items()) for line in _left_out(sorted(names), reason)]
    return [*table(["metric", "value", "95 % interval"], rows), *left_out]


def _left_out(names: list[str], reason: str) -> list[str]:
    return wrapped(f"No value of {', '.join(names)}: {reason}", hanging=2)


def _seconds(found: Evaluation) -> list[str]:
    rows = [
        [name.removeprefix("seconds_").replace("_", " "), f"{times['median']:.3f}", f"{times['p95']:.3f}"]
        for name, times in found.seconds().items()
    ]
    return table(["seconds", "median", "p95"], rows)


def _about(found: Evaluation) -> list[str]:
    counts = found.counts
    asked = f"{counted(counts['questions'], 'question')} of {found.questions:,}"
    silent, passages = counted(counts["abstentions"], "abstention"), counted(found.passages, "passage")
    lines = wrapped(
        f"{asked}, {counts['unanswerable']:,} of which nothing answers; {silent}; {passages}; "
        f"generator {found.generator}, judge {found.judge}, settings {found.settings}"
    )
    if counts["fallen_back"]:
        lines += wrapped(
            f"The generator failed {counted(counts['fallen_back'], 'time')}; the built-in reader answered."
        )
    if counts["withheld"]:
        lines += wrapped(f"{counted(counts['withheld'], 'sentence')} withheld as unsupported.")
    if counts["conflicting"]:
        lines += wrapped(f"{counted(counts['conflicting'], 'answer')} with documents that contradict each other.")
    return lines
