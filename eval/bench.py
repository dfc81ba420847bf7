"""The benchmarks of retrieval behind README.md: ``make bench DATA=folder``, where folder holds BEIR-style folders.

Prints tables with hardware, commit and spread, and appends them to ``eval/LOG.md`` when that file is there. Parts are
compared side by side in one run. Knows the product by `rag`; says nothing of answers, nor of ingest
(`eval.bench_ingest`).
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eval.folders import Question, load_corpus, read_questions
from eval.ranking import DEPTH, Run, rank, score
from eval.tables import Table, commit, hardware, report
from rag.assembly import Citewell, open_citewell
from rag.records import Collection
from rag.settings import Settings, load_settings

SETS = ("squad", "nq_qed", "clapnq", "hotpotqa", "tatqa")
#: The constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009).
RRF = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with squad/, nq_qed/ ... in BEIR layout")
    parser.add_argument("--only", choices=["retrieval", "latency"], help="one benchmark alone")
    parser.add_argument("--repeats", type=int, default=3, help="how often speed is measured")
    options = parser.parse_args()
    sets = [options.data / name for name in SETS if (options.data / name).is_dir()]
    if not sets:
        parser.error(f"{options.data} has none of {', '.join(SETS)}.")
    settings = load_settings()
    chosen = [options.only] if options.only else ["retrieval", "latency"]
    report(f"Benchmark of {datetime.now(UTC):%Y-%m-%d}, commit {commit()}, {hardware()}")
    if "retrieval" in chosen:
        report("nDCG@10 by part, on the same indexes in one run", retrieval(settings, sets))
    if "latency" in chosen:
        report("Milliseconds of one question after another, 10,000 passages", latency(settings, sets, options.repeats))


# -- what is measured ------------------------------------------------------------------------------------------------


def retrieval(settings: Settings, folders: Sequence[Path]) -> Table:
    """Return nDCG@10 of BM25, dense, their reciprocal rank fusion, and the product; then recall and speed of it."""
    rows = [["set", "questions", "BM25", "dense", "RRF", "Citewell", "recall@5", "recall@20", "MRR@10", "questions/s"]]
    for folder in folders:
        with open_citewell(eval_settings(settings)) as citewell:
            collection = load_corpus(citewell, folder)
            questions = read_questions(folder)
            lexical, dense = parts(citewell, collection, questions)
            start = time.perf_counter()
            product = rank(citewell, collection.name, questions)
            seconds = time.perf_counter() - start
        values = [score(run, questions)["ndcg@10"] for run in (lexical, dense, reciprocal(lexical, dense))]
        own = score(product, questions)
        figures = [*values, own["ndcg@10"], own["recall@5"], own["recall@20"], own["mrr@10"]]
        rows.append(
            [folder.name, f"{len(questions):,}", *(f"{v:.3f}" for v in figures), f"{len(questions) / seconds:.0f}"]
        )
    return rows


def parts(citewell: Citewell, collection: Collection, questions: Sequence[Question]) -> tuple[Run, Run]:
    """Return the rankings of the lexical and of the dense index alone."""
    indexes, catalog = citewell.indexes_of(collection), citewell.store.catalog
    last = catalog.pulse(collection.id).last_seq
    names = {seq: p.section[0] for seq, p in catalog.passages(collection.id, range(1, last + 1)).items()}
    lexical: Run = {}
    dense: Run = {}
    for question in questions:
        vector = citewell.embedder.encode([question.text], role="query").vectors[0]
        found = (indexes.lexical.search(question.text, DEPTH), indexes.dense.search(vector, DEPTH))
        for run, hits in zip((lexical, dense), found, strict=True):
            run[question.id] = [(names[int(s)], float(x)) for s, x in zip(hits.seqs, hits.scores, strict=True)]
    return lexical, dense


def reciprocal(*runs: Run) -> Run:
    """Return the reciprocal rank fusion of rankings of the same questions."""
    fused: Run = {}
    for question in runs[0]:
        scores: dict[str, float] = {}
        for run in runs:
            for place, (passage, _) in enumerate(run[question], 1):
                scores[passage] = scores.get(passage, 0.0) + 1 / (RRF + place)
        fused[question] = sorted(scores.items(), key=lambda item: -item[1])[:DEPTH]
    return fused


def latency(
    settings: Settings, folders: Sequence[Path], repeats: int, passages: int = 10_000, asked: int = 200
) -> Table:
    """Return median and 95th percentile of search and of ask with the built-in reader, warm, one client."""
    with tempfile.TemporaryDirectory() as scratch, open_citewell(eval_settings(settings)) as citewell:
        collection = load_corpus(citewell, pool(folders, Path(scratch), passages))
        texts = [q.text for folder in folders for q in read_questions(folder)[: asked // len(folders)]]
        plans = [citewell.plan(text, [collection.name]) for text in texts]
        search = [milliseconds(plans, citewell.search) for _ in range(repeats)]
        with asyncio.Runner() as runner:
            ask = [milliseconds(plans, lambda plan: runner.run(citewell.ask(plan))) for _ in range(repeats)]
        count = citewell.store.catalog.collection(collection.name).passages
    rows = [["step", "passages", "questions", "median", "p95", "medians of the runs"]]
    for name, runs in (("search", search), ("ask, built-in reader", ask)):
        every = sorted(value for run in runs for value in run)
        medians = ", ".join(f"{statistics.median(run):.1f}" for run in runs)
        p95 = every[int(0.95 * len(every))]
        rows.append([name, f"{count:,}", str(len(texts)), f"{statistics.median(every):.1f}", f"{p95:.1f}", medians])
    return rows


def milliseconds(plans: Sequence[Any], step: Callable[[Any], object]) -> list[float]:
    """Return how long ``step`` takes on each plan, after a warm-up of ten."""
    for plan in plans[:10]:
        step(plan)
    times = []
    for plan in plans:
        start = time.perf_counter()
        step(plan)
        times.append(1000 * (time.perf_counter() - start))
    return times


def pool(folders: Iterable[Path], target: Path, passages: int) -> Path:
    """Write one corpus of the first ``passages`` rows of several folders, in turn from each."""
    with ExitStack() as stack:
        corpora = [
            stack.enter_context(gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8")) for folder in folders
        ]
        out = stack.enter_context((target / "corpus.jsonl").open("w", encoding="utf-8"))
        turns = (line for group in itertools.zip_longest(*corpora) for line in group if line)
        out.writelines(itertools.islice(turns, passages))
    return target


def eval_settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"data": settings.cache / "eval"})


if __name__ == "__main__":
    main()
