"""The benchmark of the readers: ``python -m eval.bench_reader --data folder``, where folder holds BEIR-style folders.

For each set: how many of its answerable questions have a gold answer in the sentences that are shown, how many
sentences that are, how often each reader keeps silent and how long an answer takes it, over the passages that the
product retrieves (from the pool of the Wikipedia sets with ``--pool``), or those of its report where a question has
one. Prints tables, and appends them to a log where one is given.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.bench_retrieval import WIKIPEDIA, spread
from eval.folders import load_corpus, read_rows
from eval.pools import join
from eval.ranking import eval_settings
from eval.reading import is_said
from eval.statistics import compare, interval
from eval.tables import Table, hardware, report
from rag.assembly import Citewell, open_citewell
from rag.pair_model import WEIGHTS, TrainedPairs
from rag.reader import READ, Candidate, Reader
from rag.records import Kind, Passage
from rag.settings import Settings, load_settings
from rag.span_reader import SpanReader
from rag.trained_reader import TrainedReader

SETS = ("squad", "nq_qed", "clapnq", "tatqa")
ReadSentences = Callable[[str, Sequence[Passage]], list[Candidate]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with the passages that a reader gets, and its gold answers: none if nothing answers it."""

    question: str
    passages: tuple[Passage, ...]
    answers: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both readers and print what they show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--set", action="append", choices=SETS, dest="sets")
    parser.add_argument("--limit", type=int, default=400, help="questions of each set, at equal distances")
    parser.add_argument("--pool", action="store_true", help="retrieve from all Wikipedia sets at once")
    parser.add_argument("--log", type=Path, default=Path("nowhere"))
    given = parser.parse_args(arguments)
    with _opened(given.weights) as (citewell, readers), tempfile.TemporaryDirectory() as scratch:
        pool = Path(scratch) / "pool"
        if given.pool:
            join([given.data / name for name in WIKIPEDIA], pool)
        for name in given.sets or SETS:
            corpus = pool if given.pool and name in WIKIPEDIA else given.data / name
            asked = asked_of(citewell, given.data / name, corpus, given.limit)
            report(f"Readers on {name}, {hardware()}", side_by_side(readers, asked), given.log)


@contextmanager
def _opened(weights: Path) -> Iterator[tuple[Citewell, dict[str, ReadSentences]]]:
    with (
        open_citewell(untrained_settings()) as citewell,
        closing(SpanReader(TrainedPairs("reader", weights))) as trained,
    ):
        words = Reader(citewell.embedder)
        yield citewell, {"words": words.read, "trained": TrainedReader(trained, words).read}


def untrained_settings() -> Settings:
    """Return the settings of an evaluation that opens no trained model of the package: it may not be there yet."""
    settings = eval_settings(load_settings())
    plain = {
        "generator": settings.generator.model_copy(update={"kind": "reader", "reader": "words"}),
        "judge": settings.judge.model_copy(update={"kind": "words"}),
    }
    return settings.model_copy(update=plain)


def asked_of(citewell: Citewell, folder: Path, corpus: Path, limit: int) -> list[Asked]:
    """Return questions of ``folder`` with the passages of their report, or else the best ones found in ``corpus``."""
    rows = [row for row in read_rows(folder, "queries") if row.get("answers") or not row.get("answerable", True)]
    rows = spread(rows, limit)
    reports: dict[str, list[Passage]] = {}
    for number, row in enumerate(read_rows(folder, "corpus")):
        if row.get("context_id"):
            kind = Kind.TABLE if row.get("kind") == "table" else Kind.TEXT
            reports.setdefault(row["context_id"], []).append(_passage(number, row["text"], kind))
    name = "" if reports else load_corpus(citewell, corpus).name
    return [
        Asked(
            row["text"],
            tuple(reports[row["context_id"]] if reports else _found(citewell, name, row["text"])),
            _gold(row),
        )
        for row in rows
    ]


def _gold(row: dict[str, Any]) -> tuple[str, ...]:
    """Return what counts as an answer when it is shown: of long answers one of the sentences that they rest on."""
    found = row.get("gold_sentences") or row.get("answer_parts") or row["answers"]
    return tuple(found) if row.get("answerable", True) else ()


def _found(citewell: Citewell, collection: str, question: str) -> Sequence[Passage]:
    return citewell.search(citewell.plan(question, [collection], top_k=READ)).passages


def _passage(number: int, text: str, kind: Kind) -> Passage:
    key = str(number)
    return Passage(key, number, "", key, key, None, key, 1, text, "", 0, len(text), kind, None, ())


def side_by_side(readers: dict[str, ReadSentences], asked: Sequence[Asked]) -> Table:
    """Return a row for each reader, the last one with its difference to the first."""
    answerable = [one for one in asked if one.answers]
    others = [one for one in asked if not one.answers]
    rows = [[
        "reader", "a gold answer is shown", "to the first", "p", "sentences", "silent", "silent, unanswerable",
        "median ms",
    ]]  # fmt: skip
    first: list[float] | None = None
    for name, read in readers.items():
        answered = [_timed(read, one) for one in answerable]
        shown = [found for found, _ in answered]
        hits = [float(is_shown(found, one.answers)) for found, one in zip(shown, answerable, strict=True)]
        low, high = interval(hits)
        difference = compare(hits, first) if first is not None else None
        silent = [float(not read(one.question, one.passages)) for one in others]
        rows.append([
            name,
            f"{np.mean(hits):.3f} ({low:.3f}-{high:.3f})",
            f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})" if difference else "",
            f"{difference.p_value:.4f}" if difference else "",
            f"{np.mean([len(found) for found in shown]):.2f}",
            f"{np.mean([not found for found in shown]):.3f}",
            f"{np.mean(silent):.3f}" if silent else "",
            f"{1000 * np.median([seconds for _, seconds in answered]):.0f}",
        ])  # fmt: skip
        first = first or hits
    return rows


def _timed(read: ReadSentences, one: Asked) -> tuple[list[Candidate], float]:
    start = time.perf_counter()
    return read(one.question, one.passages), time.perf_counter() - start


def is_shown(found: Sequence[Candidate], answers: Sequence[str]) -> bool:
    """Say whether one of ``answers`` stands in what is shown, signs, white space and case apart."""
    return is_said(" ".join(candidate.text for candidate in found), answers)


if __name__ == "__main__":
    main()
