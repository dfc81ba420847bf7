"""The benchmark of retrieval: ``make bench-retrieval DATA=folder``, where folder holds BEIR-style folders.

Prints tables and appends them to ``eval/LOG.md``: quality by part on each set and on four of them in one pool; the time
of a search with that of each stage; many clients at once through the real server against one request at a time; and
other systems beside the product, on the same passages in the same run (`eval.bench_peers`). Says nothing of answers.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from eval.ablation import Configuration, only
from eval.bench_peers import PEERS, side_by_side
from eval.clients import Load, measure_clients
from eval.folders import Question, load_corpus, read_questions
from eval.pools import join, take, write_questions
from eval.processes import PeakMemory, serving
from eval.ranking import (
    DEPTH,
    METRICS,
    PERCENTILES,
    Run,
    default_parts,
    eval_settings,
    measure,
    percentiles,
    rank,
    score_each,
)
from eval.statistics import Numbers, compare, interval
from eval.tables import LOG, Table, commit, hardware, report
from rag.assembly import Citewell, open_citewell
from rag.settings import Settings, load_settings

RowT = TypeVar("RowT")

SETS = ("squad", "nq_qed", "clapnq", "hotpotqa", "tatqa", "medquad")
#: The sets that are written over Wikipedia: joined, they are a harder test than each alone.
WIKIPEDIA = ("squad", "nq_qed", "clapnq", "hotpotqa")
BENCHMARKS = ("quality", "latency", "clients", "peers")
SIZES = (10_000, 100_000)
#: The peers get all passages of the first two, filled up from the third; and questions of the first.
PEER_SETS, PEER_PASSAGES, PEER_QUESTIONS = ("squad", "clapnq", "nq_qed"), 4221, 300
#: The constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009).
RRF = 60
PRODUCT = "Citewell"
#: Passages that each client asks for, and how many times as many questions many clients ask as one does.
FOUND, LONGER = 10, 3


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    settings, chosen, tell = load_settings(), set(options.only or BENCHMARKS), partial(report, log=options.log)
    sets = {name: options.data / name for name in SETS if (options.data / name).is_dir()}
    tell(f"Benchmark of retrieval of {datetime.now(UTC):%Y-%m-%d}, commit {commit()}, {hardware()}")
    with tempfile.TemporaryDirectory() as scratch:
        if "quality" in chosen:
            ranked = rank_sets(settings, sets)
            if set(WIKIPEDIA) <= set(sets):
                ranked += rank_pool(settings, sets, Path(scratch) / "pool")
            tell("nDCG@10 by part, on the same indexes in one run", by_part(ranked))
            tell("The product, with 95 % bootstrap intervals over the questions", by_metric(ranked))
        if chosen & {"latency", "clients"}:
            for size in options.passages or SIZES:
                corpus = Path(scratch) / f"corpus-{size}"
                if (there := take(list(sets.values()), corpus, size)) < size and not options.passages:
                    tell(f"{there:,} passages in {options.data}: nothing is measured at {size:,}.")
                    continue
                write_questions(corpus, _mixed(sets, options.asked))
                if "latency" in chosen:
                    title = f"Milliseconds of one search after another, warm, {there:,} passages"
                    tell(title, latency(settings, corpus))
                if "clients" in chosen:
                    title = f"{options.clients} clients at once through the server, {there:,} passages"
                    tell(title, at_once(settings, corpus, options.clients, options.repeats))
        if "peers" in chosen:
            corpus = Path(scratch) / "peers"
            folders = [sets[name] for name in PEER_SETS if name in sets]
            there = join(folders, corpus, options.peer_passages)
            questions = spread(read_questions(folders[0]), options.peer_questions)
            write_questions(corpus, questions)
            names = () if options.no_peers else options.peer or PEERS
            title = f"Side by side, {there:,} passages, {len(questions)} questions of {folders[0].name}"
            tell(title, side_by_side(corpus, questions, options.peers, names))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with squad/, nq_qed/ ... in BEIR layout")
    parser.add_argument("--only", choices=BENCHMARKS, action="append", help="one benchmark alone; may be given again")
    parser.add_argument("--passages", type=int, action="append", help="how many passages are searched for the times")
    parser.add_argument("--asked", type=int, default=500, help="questions that are asked for the times")
    parser.add_argument("--clients", type=int, default=32, help="clients at once")
    parser.add_argument("--repeats", type=int, default=3, help="how often one and many clients are measured, in turn")
    parser.add_argument("--peers", type=Path, default=Path(".peers"), help="folder of the peers' environments")
    parser.add_argument("--peer", choices=PEERS, action="append", help="one peer alone; may be given again")
    parser.add_argument("--no-peers", action="store_true", help="measure the product alone in that comparison")
    parser.add_argument(
        "--peer-passages", type=int, default=PEER_PASSAGES, help="passages for the comparison with peers"
    )
    parser.add_argument("--peer-questions", type=int, default=PEER_QUESTIONS, help="questions for that comparison")
    parser.add_argument("--log", type=Path, default=LOG, help="what the tables are appended to, if it is there")
    options = parser.parse_args(arguments)
    if not any((options.data / name).is_dir() for name in SETS):
        parser.error(f"{options.data} has none of {', '.join(SETS)}.")
    return options


# -- quality ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ranked:
    """What each configuration made of the questions of one set: for each metric one number a question."""

    name: str
    values: Mapping[str, Mapping[str, Numbers]]

    @property
    def product(self) -> Mapping[str, Numbers]:
        return self.values[PRODUCT]

    @property
    def better(self) -> str:
        """The better of BM25 alone and dense alone."""
        return max(("BM25", "dense"), key=lambda name: float(self.values[name]["ndcg@10"].mean()))


def rank_sets(settings: Settings, sets: Mapping[str, Path]) -> list[Ranked]:
    """Rank the questions of each set in its own corpus."""
    with open_citewell(eval_settings(settings)) as citewell:
        return [rank_set(citewell, folder, {name: read_questions(folder)})[0] for name, folder in sets.items()]


def rank_pool(settings: Settings, sets: Mapping[str, Path], pool: Path) -> list[Ranked]:
    """Rank the questions of the Wikipedia sets in their corpora joined in ``pool``: by set, and all together."""
    folders = [sets[name] for name in WIKIPEDIA if name in sets]
    join(folders, pool)
    with open_citewell(eval_settings(settings)) as citewell:
        found = rank_set(citewell, pool, {f"pool: {folder.name}": read_questions(folder) for folder in folders})
    return [*found, together("pool: all questions", found)]


def rank_set(citewell: Citewell, folder: Path, asked: Mapping[str, Sequence[Question]]) -> list[Ranked]:
    """Return what each part, their fusions and the product make of named lists of questions over one corpus."""
    collection = load_corpus(citewell, folder).name
    default = default_parts(citewell, collection)
    found = []
    for name, questions in asked.items():
        runs = {
            part: rank(citewell, collection, questions, only(default, *switches))
            for part, switches in {"BM25": ["lexical"], "dense": ["dense"], "fused": ["lexical", "dense"]}.items()
        }
        runs["RRF"] = reciprocal(runs["BM25"], runs["dense"])
        runs[PRODUCT] = rank(citewell, collection, questions, default)
        found.append(Ranked(name, {part: score_each(run, questions) for part, run in runs.items()}))
    return found


def together(name: str, parts: Sequence[Ranked]) -> Ranked:
    """Return the questions of several sets as one."""
    values = {
        configuration: {
            metric: np.concatenate([part.values[configuration][metric] for part in parts]) for metric in METRICS
        }
        for configuration in parts[0].values
    }
    return Ranked(name, values)


def by_part(ranked: Sequence[Ranked]) -> Table:
    """Return nDCG@10 of each part, and how far the product is above the better of BM25 and dense."""
    columns = ("BM25", "dense", "RRF", "fused", PRODUCT)
    rows = [["set", "questions", *columns, "better part", "above it", "difference, 95 %", "p"]]
    for one in ranked:
        means = [float(one.values[column]["ndcg@10"].mean()) for column in columns]
        part = one.values[one.better]["ndcg@10"]
        found = compare(one.product["ndcg@10"], part)
        rows.append([
            one.name,
            f"{len(part):,}",
            *(f"{mean:.3f}" for mean in means),
            one.better,
            f"{found.mean / float(part.mean()):+.1%}",
            f"{found.low:+.3f} to {found.high:+.3f}",
            f"{found.p_value:.4f}",
        ])  # fmt: skip
    return rows


def by_metric(ranked: Sequence[Ranked]) -> Table:
    """Return every metric of the product with its interval."""
    rows = [["set", *METRICS]]
    for one in ranked:
        cells = []
        for metric in METRICS:
            low, high = interval(one.product[metric])
            cells.append(f"{one.product[metric].mean():.3f} ({low:.3f}-{high:.3f})")
        rows.append([one.name, *cells])
    return rows


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


# -- speed -----------------------------------------------------------------------------------------------------------


def latency(settings: Settings, corpus: Path) -> Table:
    """Return percentiles of a search from the text of a question to its passages, whole and by stage, one client."""
    with open_citewell(eval_settings(settings)) as citewell:
        collection = load_corpus(citewell, corpus)
        parts = default_parts(citewell, collection.name)
        measured = measure(citewell, collection.name, read_questions(corpus), Configuration(PRODUCT, parts))
    rows = [["stage", *(f"p{p}" for p in PERCENTILES), "share of the time"]]
    rows.append(["whole", *_three(measured.seconds), ""])
    return rows + [[name, *_three(times), f"{measured.share(name):.1%}"] for name, times in measured.stages.items()]


def _three(seconds: Numbers) -> list[str]:
    return [f"{value:.2f}" for value in percentiles(seconds).values()]


def at_once(settings: Settings, corpus: Path, many: int, repeats: int) -> Table:
    """Return what one client and ``many`` get from the real server, in turn ``repeats`` times, and its memory."""
    own, questions = eval_settings(settings), read_questions(corpus)
    with open_citewell(own) as citewell:
        name = load_corpus(citewell, corpus).name
    bodies = [{"query": question.text, "collections": [name], "top_k": FOUND} for question in questions]
    with serving(own.data) as (address, server), PeakMemory(server.pid) as memory:
        ask = partial(measure_clients, f"{address}/v1/search")
        ask(bodies, many)  # every process of the server is warm after this
        rounds = [(ask(bodies, 1), ask(bodies * LONGER, many)) for _ in range(repeats)]
    peaks = [[f"peak MiB of {name}", peak, *[""] * 5] for name, _, peak in memory.table()[1:]]
    return clients_table(rounds) + peaks


def clients_table(rounds: Sequence[tuple[Load, Load]]) -> Table:
    """Return a row for one client, one for many, and how many times the throughput that is; medians over rounds."""
    rows = [["clients", "requests/s", "of the rounds", "p50 ms", "p95 ms", "p99 ms", "not answered"]]
    for loads in zip(*rounds, strict=True):
        rates = [load.throughput for load in loads]
        times = [[1000 * load.percentile(p / 100) for load in loads] for p in PERCENTILES]
        rows.append([
            str(loads[0].clients),
            f"{np.median(rates):.1f}",
            ", ".join(f"{rate:.1f}" for rate in rates),
            *(f"{np.median(values):.1f}" for values in times),
            str(sum(load.errors for load in loads)),
        ])  # fmt: skip
    gains = [many.throughput / one.throughput for one, many in rounds]
    spread = ", ".join(f"{gain:.2f}" for gain in gains)
    return [*rows, ["throughput, many against one", f"{np.median(gains):.2f} x", spread, *[""] * 4]]


def _mixed(sets: Mapping[str, Path], count: int) -> list[Question]:
    """Return about ``count`` questions, equally many of each set."""
    each = max(1, count // len(sets))
    return [question for folder in sets.values() for question in spread(read_questions(folder), each)]


def spread(rows: Sequence[RowT], count: int) -> list[RowT]:
    """Return ``count`` rows at equal distances, since questions about one document stand together."""
    places = np.linspace(0, len(rows), min(count, len(rows)), endpoint=False).astype(int)
    return [rows[place] for place in places]


if __name__ == "__main__":
    main()
