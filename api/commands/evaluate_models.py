"""``citewell eval reader`` and ``citewell eval judge``: how good the models are that read and judge.

Knows how the numbers are shown; ``eval`` computes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.evaluate import tenths
from api.commands.options import AsJson, Data, read_settings
from api.commands.terminal import counted, say, say_json, table
from rag.errors import BadInput

if TYPE_CHECKING:
    from eval.judging import Agreement, Labelled, Metric
    from rag.settings import Settings

#: Shares of the questions for which the human table shows the risk.
COVERAGES = (0.25, 0.5, 0.75, 0.9, 1.0)

Weights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FOLDER", help="Measure a model exported there, not the one that ships."),
]


def evaluate_judge(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON lines, plain or .gz: context, response, label true or false.")
    ],
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="Only rows of this split; without it all but those of train."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="Judge N rows only: by chance, but always the same ones."),
    ] = None,
    llm: Annotated[
        bool, typer.Option("--llm", help="Measure the language model of the settings `scoring`, not what ships.")
    ] = False,
    weights: Weights = None,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Measure how well the judge agrees with people on rows of evidence, claim and label.

    Prints balanced accuracy, F1 of "supported" and the area under the ROC curve with 95 % bootstrap intervals over the
    rows, how many rows of either label the judge called supported, and how many rows are judged in a second. The
    reports show what was measured last, and correct what the judge finds by it.
    """
    if llm and weights:
        raise BadInput("--llm and --weights name two judges; leave one of them out.")
    from eval.judging import keep_agreement, read_labelled, sample_rows

    settings = read_settings(ctx, data)
    rows = sample_rows(read_labelled(file, split), limit)
    name, fingerprint, found = _agreement_of_model(settings, rows) if llm else _agreement(rows, weights)
    if fingerprint and not weights:
        keep_agreement(settings.data, name, fingerprint, file.name, found)
    if as_json:
        say_json({"judge": name, **found.as_json()})
        return
    say(_metrics(found.metrics()))
    say()
    say(_confusion(found))
    failed = f", {found.failed:,} failed" if found.failed else ""
    say(f"{counted(len(rows), 'row')}{failed}, {len(found.labels) / found.seconds:.1f} a second; judge {name}")


def _agreement(rows: Sequence[Labelled], weights: Path | None) -> tuple[str, str, Agreement]:
    """Return the name and the fingerprint of the judge that ships, or of other weights, and how it did."""
    from eval.judges import built_in_fingerprint
    from eval.judging import judge_rows
    from rag.judge import TrainedJudge
    from rag.pair_model import WEIGHTS, TrainedPairs

    with closing(TrainedJudge(TrainedPairs("judge", weights or WEIGHTS))) as judge:
        return judge.name, built_in_fingerprint(judge), judge_rows(judge, rows)


def _agreement_of_model(settings: Settings, rows: Sequence[Labelled]) -> tuple[str, str, Agreement]:
    """Return the same of the language model that the settings name; raises `Misconfigured` if they name none."""
    from eval.agreement import score_rows
    from eval.judges import open_model_judge
    from eval.scored import ScoreFiles
    from rag.store import SCORES

    judge = open_model_judge(settings.scoring)
    files = ScoreFiles(settings.data / SCORES)
    found, scored = score_rows(judge, rows, settings.scoring, files=files, scored=tenths("Judged", "rows"))
    return scored.judge, scored.fingerprint, found


def _confusion(found: Agreement) -> list[str]:
    confusion = found.confusion()
    rows = [
        ["supported", f"{confusion.found:,}", f"{confusion.missed:,}"],
        ["not supported", f"{confusion.passed:,}", f"{confusion.refused:,}"],
    ]
    return table(["people say", "judged supported", "judged not"], rows)


def evaluate_reader(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="BEIR layout; its queries have answers, or answerable false.")
    ],
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Ask the first N only.")] = None,
    weights: Weights = None,
    as_json: AsJson = False,
) -> None:
    """Measure how well the reader answers when it is given the right passages.

    Prints F1 and exact match of the marked words as SQuAD 2.0 counts them, and which share of the unanswerable
    questions is refused where 90 % of the answerable ones are answered, with 95 % bootstrap intervals over the
    questions, and how many questions are read in a second.
    """
    from eval.reading import Comprehension, read_all, read_given
    from rag.pair_model import WEIGHTS, TrainedPairs
    from rag.span_reader import SpanReader

    questions = read_given(folder)[:limit]
    with closing(SpanReader(TrainedPairs("reader", weights or WEIGHTS))) as reader:
        found = Comprehension(questions, *read_all(reader.read, questions))
    if as_json:
        say_json(found.as_json())
        return
    say(_metrics(found.metrics()))
    say()
    say(table(["answered", "risk"], [[f"{share:.0%}", f"{risk:.3f}"] for share, risk in found.risk(COVERAGES).items()]))
    say(f"{counted(len(questions), 'question')}, {len(questions) / found.seconds:.1f} a second")


def _metrics(metrics: Mapping[str, Metric]) -> list[str]:
    rows = [[name, f"{metric.value:.4f}", f"{metric.low:.4f} to {metric.high:.4f}"] for name, metric in metrics.items()]
    return table(["metric", "value", "95 % interval"], rows)
