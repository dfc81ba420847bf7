"""The benchmark of the answers: ``make bench-answers DATA=folder``, where folder holds BEIR-style folders.

Asks questions of each set all the way through the product: with the built-in reader, and with a language model where
the settings choose one. Prints tables and appends them to ``eval/LOG.md``: the words of the answers, what they cite,
when they keep silent and how long they take, with 95 % bootstrap intervals over the questions. Knows no formula.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from eval.answering import Evaluation, evaluate_answers
from eval.judging import Metric
from eval.tables import LOG, Table, commit, hardware, report
from rag.settings import Settings, load_settings

SETS = ("squad", "nq_qed", "clapnq", "tatqa")
#: The tables, and what is in the columns of each.
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "The words of the answers": {
        "f1": "F1",
        "exact_match": "exact match",
        "f1_answerable": "F1, answerable",
        "answer_in_text": "answer in text",
    },
    "What the answers cite": {
        "gold_cited_precision": "gold cited, precision",
        "gold_cited_recall": "gold cited, recall",
        "quotes_verbatim": "quotes verbatim",
        "support": "support",
        "supported": "supported",
    },
    "Long answers: the sentences that they cite against the gold ones": {
        "sentence_precision": "precision",
        "sentence_recall": "recall",
        "sentence_f1": "F1",
    },
    "Silence where nothing answers": {
        "abstention_precision": "abstention, precision",
        "abstention_recall": "abstention, recall",
    },
}


@dataclass(frozen=True, slots=True)
class Measured:
    """What was said to the questions of one set, and the figures of it."""

    name: str
    evaluation: Evaluation
    figures: Mapping[str, Metric]

    @property
    def heading(self) -> list[str]:
        counts = self.evaluation.counts
        return [self.name, self.evaluation.generator, str(counts["questions"]), str(counts["unanswerable"])]


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask the questions of every set and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with squad/, nq_qed/ ... in BEIR layout")
    parser.add_argument("--set", action="append", choices=SETS, dest="sets", help="one set alone; may be given again")
    parser.add_argument("--limit", type=int, default=300, help="questions of each set, always the same ones")
    parser.add_argument("--log", type=Path, default=LOG, help="what the tables are appended to, if it is there")
    options = parser.parse_args(arguments)
    sets = [options.data / name for name in options.sets or SETS if (options.data / name).is_dir()]
    if not sets:
        parser.error(f"{options.data} has none of {', '.join(options.sets or SETS)}.")
    tell = partial(report, log=options.log)
    measured = []
    for settings in generators(load_settings()):
        for folder in sets:
            evaluation = evaluate_answers(settings, folder, limit=options.limit)
            measured.append(Measured(folder.name, evaluation, evaluation.metrics()))
    tell(f"Benchmark of answers of {datetime.now(UTC):%Y-%m-%d}, commit {commit()}, {hardware()}")
    for title, columns in COLUMNS.items():
        if table := by_figure(measured, columns):
            tell(title, table)
    tell("Seconds of one question after another", by_seconds(measured))


def generators(settings: Settings) -> list[Settings]:
    """Return settings with the built-in reader, and those that were given if they choose something else."""
    reader = settings.generator.model_copy(update={"kind": "reader"})
    others = [settings] if settings.generator.kind != "reader" else []
    return [settings.model_copy(update={"generator": reader}), *others]


def by_figure(measured: Sequence[Measured], columns: Mapping[str, str]) -> Table | None:
    """Return a row for each set of which one of the figures is known, with intervals; None if there is none."""
    rows = [
        [*one.heading, *(_shown(one.figures[name]) for name in columns)]
        for one in measured
        if any(not math.isnan(one.figures[name].value) for name in columns)
    ]
    return [["set", "generator", "questions", "unanswerable", *columns.values()], *rows] if rows else None


def _shown(figure: Metric) -> str:
    return "" if math.isnan(figure.value) else f"{figure.value:.3f} ({figure.low:.3f}-{figure.high:.3f})"


def by_seconds(measured: Sequence[Measured]) -> Table:
    """Return a row for each set: median and 95th percentile to the first token, to the last and to the end."""
    names = {"seconds_to_first_token": "first token", "seconds_to_last_token": "last token", "seconds_to_end": "end"}
    rows = [["set", "generator", "passages", *(f"{name}: median, p95" for name in names.values()), "fallen back"]]
    for one in measured:
        seconds, about = one.evaluation.seconds(), one.evaluation
        times = [f"{seconds[name]['median']:.3f}, {seconds[name]['p95']:.3f}" for name in names]
        rows.append([one.name, about.generator, f"{about.passages:,}", *times, str(about.counts["fallen_back"])])
    return rows


if __name__ == "__main__":
    main()
