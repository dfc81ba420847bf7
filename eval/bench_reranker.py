"""The benchmark of a reranker head: ``python -m eval.bench_reranker --data FOLDER --weights FOLDER``.

What a trained reader says of a whole passage (the log odds that it answers) joins the ranking that late interaction
ends with, at several weights: is the order of the best passages better, and on every set? ``--weights`` may hold a
model that was trained without one of the sets (``eval.training.train --without``): only so its table for that set tells
of texts it has not learnt. Knows no sentence and no answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from eval.bench_reader import untrained_settings
from eval.bench_retrieval import SETS, spread
from eval.folders import Question, load_corpus, read_questions
from eval.ranking import DEPTH, CorpusIds, Run, score_each
from eval.statistics import Numbers, compare, interval
from eval.tables import Table, hardware, report
from eval.tuning.fitting import COUNTS
from rag.assembly import Citewell, open_citewell
from rag.pair_model import WEIGHTS, TrainedPairs
from rag.records import Ranking
from rag.retrieval import beside
from rag.span_reader import Asked, SpanReader

#: How many of the best passages are read.
READ = 30

#: Takes questions beside passages; returns the log odds (n,) that each passage answers.
LogOdds = Callable[[Sequence[Asked]], Sequence[float]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure rankings with and without the head, and print what they show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--set", action="append", choices=SETS, dest="sets")
    parser.add_argument("--limit", type=int, default=300, help="questions of each set, at equal distances")
    parser.add_argument("--log", type=Path, default=Path("nowhere"))
    given = parser.parse_args(arguments)
    with (
        open_citewell(untrained_settings()) as citewell,
        closing(SpanReader(TrainedPairs("reader", given.weights))) as reader,
    ):
        for name in given.sets or SETS:
            table = side_by_side(citewell, given.data / name, given.limit, reader.first_odds)
            report(f"Reranker head on {name}, {hardware()}", table, given.log)


def side_by_side(citewell: Citewell, folder: Path, limit: int, log_odds: LogOdds) -> Table:
    """Return a row for the product's own ranking of the questions in ``folder``, and one for each of `COUNTS`."""
    questions = spread(read_questions(folder), limit)
    collection = load_corpus(citewell, folder).name
    names = CorpusIds(citewell, collection)
    found = {q.id: citewell.search(citewell.plan(q.text, [collection], top_k=DEPTH)) for q in questions}
    odds = {q.id: _read(q, found[q.id], log_odds) for q in questions}
    rows = [["weight of the head", "nDCG@10", "to none", "p"]]
    first: Numbers | None = None
    for count in (0.0, *COUNTS):
        run: Run = {q.id: names.of(reranked(found[q.id], odds[q.id], count))[:DEPTH] for q in questions}
        values = score_each(run, questions)["ndcg@10"]
        low, high = interval(values)
        difference = compare(values, first) if first is not None else None
        rows.append([
            f"{count:g}",
            f"{values.mean():.3f} ({low:.3f}-{high:.3f})",
            f"{difference.mean:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})" if difference else "",
            f"{difference.p_value:.4f}" if difference else "",
        ])  # fmt: skip
        first = values if first is None else first
    return rows


def _read(question: Question, ranking: Ranking, log_odds: LogOdds) -> Sequence[float]:
    return log_odds([Asked(question.text, "", passage.indexed_text) for passage in ranking.passages[:READ]])


def reranked(ranking: Ranking, odds: Sequence[float], count: float) -> Ranking:
    """Return ``ranking`` with its first passages in the order of `rag.retrieval.beside`; others stay behind them."""
    read = ranking.passages[: len(odds)]
    joined = np.array(beside([passage.score for passage in read], odds, count))
    order = np.argsort(-joined.round(9), kind="stable")
    passages = (*(read[i] for i in order), *ranking.passages[len(odds) :])
    return Ranking(passages, ranking.stages, ranking.timings)


if __name__ == "__main__":
    main()
