"""How good the ranking is: retrieval metrics over a folder of questions with relevance judgements.

The metrics are those of trec_eval through the ir-measures library: nDCG@10 (Järvelin and Kekäläinen, ACM TOIS 20(4),
2002), recall@k, and the reciprocal rank cut at 10. Knows no answer and no judge.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.folders import Progress, Question, load_corpus, read_questions
from rag.assembly import Citewell, open_citewell
from rag.errors import BadInput, Misconfigured
from rag.settings import Settings

#: How deep a ranking is asked for and written to a run file.
DEPTH = 100
METRICS = {"ndcg@10": "nDCG@10", "recall@5": "R@5", "recall@20": "R@20", "mrr@10": "RR@10"}

#: For each question id, its passages with scores, best first.
Run = dict[str, list[tuple[str, float]]]


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """The mean of each metric in [0, 1] over ``queries`` questions, asked one after the other."""

    values: dict[str, float]
    queries: int
    queries_per_second: float

    def as_json(self) -> dict[str, float | int]:
        """Return one flat object: the metrics, ``queries`` and ``queries_per_second``."""
        rounded = {name: round(value, 4) for name, value in self.values.items()}
        return rounded | {"queries": self.queries, "queries_per_second": round(self.queries_per_second, 1)}


def evaluate_folder(
    settings: Settings,
    folder: Path,
    *,
    limit: int | None = None,
    run_file: Path | None = None,
    progress: Progress | None = None,
) -> RetrievalScores:
    """Load the corpus of ``folder``, ask its questions (the first ``limit``), and score the rankings.

    The loaded corpus is kept below the cache folder, so that the next run on it starts at once. Raises `BadInput` if
    the folder is not in BEIR layout, and `Misconfigured` if the metrics library is not installed.
    """
    questions = read_questions(folder)[:limit]
    if not questions:
        raise BadInput(f"{folder} has no question with a relevant passage.")
    with open_citewell(settings.model_copy(update={"data": settings.cache / "eval"})) as citewell:
        collection = load_corpus(citewell, folder, progress)
        start = time.perf_counter()
        run = rank(citewell, collection.name, questions)
        seconds = time.perf_counter() - start
    if run_file:
        write_run(run_file, run)
    return RetrievalScores(score(run, questions), len(questions), len(questions) / seconds)


def rank(citewell: Citewell, collection: str, questions: Sequence[Question]) -> Run:
    """Return the ranking of each question by the product's own retrieval."""
    run: Run = {}
    for question in questions:
        ranking = citewell.search(citewell.plan(question.text, [collection], top_k=DEPTH))
        run[question.id] = [(passage.section[0], passage.score) for passage in ranking.passages]
    return run


def score(run: Run, questions: Sequence[Question]) -> dict[str, float]:
    """Return the mean of each of `METRICS` over ``questions``; one without any passage in ``run`` counts 0."""
    measures = import_ir_measures()
    wanted = {name: measures.parse_measure(text) for name, text in METRICS.items()}
    judged: dict[str, dict[str, int]] = {question.id: question.relevant for question in questions}
    # Ranks decide, not scores: trec_eval would break ties by id.
    ranked = {
        question: {passage: float(len(passages) - place) for place, (passage, _) in enumerate(passages)}
        for question, passages in run.items()
    }
    found = measures.calc_aggregate(list(wanted.values()), judged, ranked)
    return {name: float(found[measure]) for name, measure in wanted.items()}


def write_run(file: Path, run: Run) -> None:
    """Write a run in TREC format: query-id Q0 corpus-id rank score tag."""
    lines = [
        f"{question} Q0 {passage} {place} {value:.6f} citewell"
        for question, passages in run.items()
        for place, (passage, value) in enumerate(passages, 1)
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def import_ir_measures() -> Any:
    """Return the metrics library; raises `Misconfigured` with the cure if it is not installed."""
    try:
        import ir_measures
    except ImportError as error:
        raise Misconfigured("The evaluation needs its extra; run `pip install citewell[eval]`.") from error
    return ir_measures
