"""``citewell eval reader`` and ``citewell eval judge``: how good the models are that ship with the package.

Knows how the numbers are shown; ``eval`` computes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.options import AsJson
from api.commands.terminal import counted, say, say_json, table

if TYPE_CHECKING:
    from eval.judging import Metric

#: Shares of the questions for which the human table shows the risk.
COVERAGES = (0.25, 0.5, 0.75, 0.9, 1.0)

Weights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FOLDER", help="Measure a model exported there, not the one that ships."),
]


def evaluate_judge(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON lines, plain or .gz: context, response, label true or false.")
    ],
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="Only rows of this split; without it all but those of train."),
    ] = None,
    weights: Weights = None,
    as_json: AsJson = False,
) -> None:
    """Measure how well the judge agrees with people on rows of evidence, claim and label.

    Prints balanced accuracy, F1 of "supported" and the area under the ROC curve with 95 % bootstrap intervals over the
    rows, and how many rows are judged in a second.
    """
    from eval.judging import judge_rows, read_labelled
    from rag.judge import TrainedJudge
    from rag.pair_model import WEIGHTS, TrainedPairs

    rows = read_labelled(file, split)
    with closing(TrainedJudge(TrainedPairs("judge", weights or WEIGHTS))) as judge:
        found = judge_rows(judge, rows)
    if as_json:
        say_json(found.as_json())
        return
    say(_metrics(found.metrics()))
    say(f"{counted(len(rows), 'row')}, {len(rows) / found.seconds:.1f} a second")


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
