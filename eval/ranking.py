"""How good the ranking is, and how fast: retrieval metrics over a folder of questions with relevance judgements.

The metrics are those of trec_eval through the ir-measures library: nDCG@10 (Järvelin and Kekäläinen, ACM TOIS 20(4),
2002), recall@k, and the reciprocal rank cut at 10, each a number a question. Knows no answer and no judge.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from eval.ablation import DEFAULT, Configuration, configurations, switches
from eval.folders import Progress, Question, load_corpus, read_questions
from eval.statistics import Difference, Numbers, compare, interval
from rag.assembly import Citewell, open_citewell
from rag.errors import BadInput, Misconfigured
from rag.queries import Parts
from rag.records import Passage, Ranking
from rag.settings import Settings
from rag.understanding import MADE_BY_MODEL

#: How deep a ranking is asked for and written to a run file.
DEPTH = 100
METRICS = {
    "ndcg@10": "nDCG@10",
    "recall@5": "R@5",
    "recall@20": "R@20",
    "recall@100": "R@100",
    "mrr@10": "RR@10",
}
PERCENTILES = (50, 95, 99)
#: At most so many questions are asked again, one after the other, for their times.
TIMED = 500
#: What a search takes beside its named stages, planning included.
OTHER = "other"

#: For each question id, its passages with scores, best first.
Run = dict[str, list[tuple[str, float]]]
#: Told in a sentence what is being measured.
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """One configuration: its ``run``, and ``values`` with one number a question for each metric.

    ``seconds`` has one number for each search that was timed, from the text of the question to its passages, asked one
    after the other; ``stages`` has the same for each stage of it, the rest as `OTHER`.
    """

    configuration: Configuration
    run: Run
    values: Mapping[str, Numbers]
    seconds: Numbers
    stages: Mapping[str, Numbers]

    @property
    def means(self) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in self.values.items()}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return the 95 % bootstrap interval of each metric over the questions."""
        return {name: interval(values) for name, values in self.values.items()}

    def against(self, other: Measured) -> dict[str, Difference]:
        """Return for each metric how far this one is above another on the same questions."""
        return {name: compare(values, other.values[name]) for name, values in self.values.items()}

    def share(self, stage: str) -> float:
        """Return which share of the time of all searches a stage took."""
        return float(self.stages[stage].sum() / self.seconds.sum())

    def as_json(self) -> dict[str, Any]:
        """Return one object: metrics, ``queries`` and their rate flat; ``intervals``, ``latency_ms`` and ``stages``."""
        return {
            **{name: round(mean, 4) for name, mean in self.means.items()},
            "queries": len(self.run),
            "queries_per_second": round(len(self.seconds) / float(self.seconds.sum()), 1),
            "intervals": {name: [round(low, 4), round(high, 4)] for name, (low, high) in self.intervals().items()},
            "latency_ms": percentiles(self.seconds),
            "stages": {
                name: percentiles(seconds) | {"share": round(self.share(name), 4)}
                for name, seconds in self.stages.items()
            },
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The product's ``default`` configuration and what it is compared with.

    ``left_out`` says in a sentence why a configuration could not be measured.
    """

    default: Measured
    others: tuple[Measured, ...] = ()
    left_out: Mapping[str, str] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return one object: that of the default, and if there was a comparison, ``configurations`` with p values."""
        found = self.default.as_json()
        if self.left_out is None:
            return found
        rows = [self._row(measured) for measured in (self.default, *self.others)]
        return found | {"configurations": rows, "left_out": dict(self.left_out)}

    def _row(self, measured: Measured) -> dict[str, Any]:
        about = {"name": measured.configuration.name, "parts": asdict(measured.configuration.parts)}
        if measured is self.default:
            return about | measured.as_json()
        versus = {
            name: {
                "difference": round(difference.mean, 4),
                "interval": [round(difference.low, 4), round(difference.high, 4)],
                "p_value": round(difference.p_value, 4),
            }
            for name, difference in measured.against(self.default).items()
        }
        return about | measured.as_json() | {"against_default": versus}


def evaluate_folder(
    settings: Settings,
    folder: Path,
    *,
    ablate: bool = False,
    limit: int | None = None,
    run: Path | None = None,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> Evaluation:
    """Load the corpus of ``folder``, ask its questions (the first ``limit``), and score the rankings.

    With ``ablate``, each configuration of `eval.ablation` is compared with the product's default. ``run`` is the file
    that the ranking is written to, with ``ablate`` a folder for one file each. The loaded corpus is kept below the
    cache folder, so that the next run on it starts at once. Raises `BadInput` if ``folder`` is not in BEIR layout or
    ``run`` can not be written, and `Misconfigured` if the metrics library is not installed.
    """
    import_ir_measures()
    questions = read_questions(folder)[:limit]
    if not questions:
        raise BadInput(f"{folder} has no question with a relevant passage.")
    if run:
        _check_writable(run, as_folder=ablate)
    with open_citewell(eval_settings(settings)) as citewell:
        collection = load_corpus(citewell, folder, progress)
        found = evaluate(citewell, collection.name, questions, ablate=ablate, tell=tell)
    if run and not ablate:
        write_run(run, found.default.run)
    elif run:
        for measured in (found.default, *found.others):
            name = measured.configuration.name
            write_run(run / f"{name}.trec", measured.run, f"citewell-{name}")
    return found


def evaluate(
    citewell: Citewell, collection: str, questions: Sequence[Question], *, ablate: bool, tell: Tell | None = None
) -> Evaluation:
    """Measure the product's default on a collection, with ``ablate`` each configuration of an ablation beside it."""
    idle = frozenset() if citewell.interpreter.writer else MADE_BY_MODEL
    default, *others = configurations(default_parts(citewell, collection), idle)
    first = measure(citewell, collection, questions, default)
    if not ablate:
        return Evaluation(first)
    measured: list[Measured] = []
    left_out: dict[str, str] = {}
    for place, configuration in enumerate(others, 1):
        if tell:
            tell(f"Measuring {configuration.name}, {place} of {len(others)}.")
        if configuration.parts == default.parts:  # the same ranking under its name in the table
            measured.append(Measured(configuration, first.run, first.values, first.seconds, first.stages))
            continue
        try:
            measured.append(measure(citewell, collection, questions, configuration))
        except Misconfigured as error:
            left_out[configuration.name] = error.message
    return Evaluation(first, tuple(measured), left_out)


def measure(
    citewell: Citewell, collection: str, questions: Sequence[Question], configuration: Configuration | None = None
) -> Measured:
    """Rank and score all ``questions``, then ask them again, as a user would, for the times; the default if none given.

    Raises `Misconfigured` if a part of the configuration is not there.
    """
    chosen = configuration or Configuration(DEFAULT, default_parts(citewell, collection))
    run = rank(citewell, collection, questions, chosen.parts)
    values = score_each(run, questions)
    every = math.ceil(len(questions) / TIMED)
    seconds, stages = _times(citewell, collection, questions[::every], chosen.parts)
    return Measured(chosen, run, values, seconds, stages)


def default_parts(citewell: Citewell, collection: str) -> Parts:
    """Return which parts take part where a question does not say."""
    return citewell.plan("default", [collection]).parts


def rank(citewell: Citewell, collection: str, questions: Sequence[Question], parts: Parts | None = None) -> Run:
    """Return the ranking of each question by the product's own retrieval."""
    names = CorpusIds(citewell, collection)
    return {
        question.id: names.of(_search(citewell, collection, question, parts, DEPTH))[:DEPTH] for question in questions
    }


class CorpusIds:
    """What the passages of a loaded corpus are called in it.

    The product folds near-copies: it names them with the best one of them. A judgement may be of any, so each stands
    in the ranking, right behind the one that it was folded into.
    """

    def __init__(self, citewell: Citewell, collection: str) -> None:
        self._catalog = citewell.store.catalog
        self._collection = self._catalog.collection(collection, counted=False).id

    def of(self, ranking: Ranking) -> list[tuple[str, float]]:
        """Return the ids and scores of a ranking, copies included."""
        return [(name, passage.score) for passage in ranking.passages for name in self.alike(passage)]

    def alike(self, passage: Passage) -> list[str]:
        """Return the id of a passage and those of the copies that were folded into it."""
        return [passage.section[0], *(self._by_chunk[copy.chunk_id] for copy in passage.also_in)]

    @cached_property
    def _by_chunk(self) -> dict[str, str]:
        rows = range(1, self._catalog.pulse(self._collection).last_seq + 1)
        return {
            passage.chunk_id: passage.section[0]
            for start in range(0, len(rows), 1000)
            for passage in self._catalog.passages(self._collection, rows[start : start + 1000]).values()
        }


def _times(
    citewell: Citewell, collection: str, questions: Sequence[Question], parts: Parts
) -> tuple[Numbers, dict[str, Numbers]]:
    """Return the seconds of each search for as many passages as the settings say, and those of its stages."""
    seconds, timings = [], []
    for question in questions:
        start = time.perf_counter()
        ranking = _search(citewell, collection, question, parts)
        seconds.append(time.perf_counter() - start)
        timings.append(ranking.timings)
    names = dict.fromkeys(name for timing in timings for name in timing)
    stages = {name: np.array([timing.get(name, 0.0) for timing in timings]) for name in names}
    whole = np.array(seconds)
    named: Numbers = np.sum(list(stages.values()), axis=0) if stages else np.zeros_like(whole)
    return whole, stages | {OTHER: np.maximum(whole - named, 0)}


def _search(
    citewell: Citewell, collection: str, question: Question, parts: Parts | None, top_k: int | None = None
) -> Ranking:
    switched = {name: getattr(parts, name) for name in switches(parts)} if parts else None
    plan = citewell.plan(question.text, [collection], top_k=top_k, parts=switched, history=question.history)
    return citewell.search(plan)


def percentiles(seconds: Numbers) -> dict[str, float]:
    """Return the percentiles ``p50``, ``p95`` and ``p99`` in milliseconds."""
    return {f"p{p}": round(1000 * float(np.percentile(seconds, p)), 2) for p in PERCENTILES}


def score(run: Run, questions: Sequence[Question]) -> dict[str, float]:
    """Return the mean of each of `METRICS` over ``questions``; one without any passage in ``run`` counts 0."""
    return {name: float(values.mean()) for name, values in score_each(run, questions).items()}


def score_each(run: Run, questions: Sequence[Question]) -> dict[str, Numbers]:
    """Return each of `METRICS` as one number for each of ``questions``; one without any passage in ``run`` counts 0."""
    measures = import_ir_measures()
    wanted = {measures.parse_measure(text): name for name, text in METRICS.items()}
    judged = {question.id: question.relevant for question in questions}
    # Ranks decide, not scores: trec_eval would break ties by id.
    ranked = {
        question: {passage: float(len(passages) - place) for place, (passage, _) in enumerate(passages)}
        for question, passages in run.items()
    }
    places = {question.id: place for place, question in enumerate(questions)}
    found = {name: np.zeros(len(questions)) for name in METRICS}
    for metric in measures.iter_calc(list(wanted), judged, ranked):
        found[wanted[metric.measure]][places[metric.query_id]] = metric.value
    return found


def write_run(file: Path, run: Run, tag: str = "citewell") -> None:
    """Write a run in TREC format: query-id Q0 corpus-id rank score tag.

    Evaluators sort by the score and break ties by id; so a score that does not fall is written a little lower.
    """
    lines = []
    for question, passages in run.items():
        last = float("inf")
        for place, (passage, value) in enumerate(passages, 1):
            last = min(value, last - 1e-6)
            lines.append(f"{question} Q0 {passage} {place} {last:.6f} {tag}")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _check_writable(run: Path, *, as_folder: bool) -> None:
    """Find out before the work, not after it, that its result can not be written."""
    try:
        if as_folder:
            run.mkdir(parents=True, exist_ok=True)
        else:
            run.open("a").close()
    except OSError as error:
        wanted = "folder" if as_folder else "file"
        raise BadInput(f"{run} can not be written as a {wanted} ({error.strerror}); name another one.") from error


def eval_settings(settings: Settings) -> Settings:
    """Return settings whose data folder is the one for evaluations, below the cache."""
    return settings.model_copy(update={"data": settings.cache / "eval"})


def import_ir_measures() -> Any:
    """Return the metrics library; raises `Misconfigured` with the cure if it is not installed."""
    try:
        import ir_measures
    except ImportError as error:
        raise Misconfigured("The evaluation needs its extra; run `pip install citewell[eval]`.") from error
    return ir_measures
