"""The short benchmark behind README.md: ``make bench DATA=folder``, where folder holds BEIR-style folders.

Prints tables with hardware, commit and spread, and appends them to ``eval/LOG.md`` when that file is there: the quality
of the ranking by part, and how long search and answer take. Knows the product by `rag`; says nothing of peers and many
clients (`eval.bench_retrieval`), nor of ingest (`eval.bench_ingest`).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eval.bench_retrieval import by_metric, by_part, rank_sets
from eval.folders import load_corpus, read_questions
from eval.pools import take
from eval.ranking import eval_settings
from eval.tables import Table, commit, hardware, report
from rag.answers import Keeping
from rag.assembly import open_citewell
from rag.settings import Settings, load_settings

SETS = ("squad", "nq_qed", "clapnq", "hotpotqa", "tatqa")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with squad/, nq_qed/ ... in BEIR layout")
    parser.add_argument("--only", choices=["retrieval", "latency"], help="one benchmark alone")
    parser.add_argument("--repeats", type=int, default=3, help="how often speed is measured")
    options = parser.parse_args()
    sets = {name: options.data / name for name in SETS if (options.data / name).is_dir()}
    if not sets:
        parser.error(f"{options.data} has none of {', '.join(SETS)}.")
    settings = load_settings()
    chosen = [options.only] if options.only else ["retrieval", "latency"]
    report(f"Benchmark of {datetime.now(UTC):%Y-%m-%d}, commit {commit()}, {hardware()}")
    if "retrieval" in chosen:
        ranked = rank_sets(settings, sets)
        report("nDCG@10 by part, on the same indexes in one run", by_part(ranked))
        report("The product, with 95 % bootstrap intervals over the questions", by_metric(ranked))
    if "latency" in chosen:
        report("Milliseconds of one question after another, 10,000 passages", latency(settings, sets, options.repeats))


# -- what is measured ------------------------------------------------------------------------------------------------


def latency(
    settings: Settings, sets: Mapping[str, Path], repeats: int, passages: int = 10_000, asked: int = 200
) -> Table:
    """Return median and 95th percentile of search and of ask with the built-in reader, warm, one client."""
    with tempfile.TemporaryDirectory() as scratch, open_citewell(eval_settings(settings)) as citewell:
        take(list(sets.values()), Path(scratch), passages)
        collection = load_corpus(citewell, Path(scratch))
        texts = [q.text for folder in sets.values() for q in read_questions(folder)[: asked // len(sets)]]
        plans = [citewell.plan(text, [collection.name]) for text in texts]
        search = [milliseconds(plans, citewell.search) for _ in range(repeats)]
        with asyncio.Runner() as runner:
            alone = Keeping(cached=False)
            ask = [
                milliseconds(plans, lambda plan: runner.run(citewell.ask(plan, keeping=alone))) for _ in range(repeats)
            ]
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


if __name__ == "__main__":
    main()
