"""Keeps of written questions those that a trained reader understands as their writer did.

    python -m eval.training.agreed --written FILE.jsonl.gz ... --out FILE.jsonl.gz

A small language model is often wrong about its own questions; so is the reader, but seldom in the same way: what both
say is kept (round-trip consistency: Alberti et al., "Synthetic QA Corpora Generation with Roundtrip Consistency", ACL
2019). Knows no language model.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from eval.reading import word_f1
from eval.training.rows import read_lines
from rag.pair_model import WEIGHTS, TrainedPairs
from rag.span_reader import Asked, Reading, SpanReader

#: How alike two answers are that count as one, by `word_f1`; up to which probability of any answer a reader agrees that
#: there is none, and from which one that there is its own.
ALIKE, NONE_UP_TO, FROM = 0.6, 0.4, 0.3
#: Questions that are read at a time.
BATCH = 256

Read = Callable[[Sequence[Asked]], Sequence[Reading]]


def agreed(read: Read, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield those of ``rows``, see `eval.training.writer`, of which ``read`` says what they say themselves."""
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        readings = read([Asked(row["question"], row["context"], row["text"]) for row in batch])
        yield from (row for row, reading in zip(batch, readings, strict=True) if _agree(row, reading))


def _agree(row: dict[str, Any], reading: Reading) -> bool:
    if not row["answer"]:
        return reading.probability <= NONE_UP_TO
    if reading.answer is None or reading.probability < FROM:
        return False
    text = row["text"]
    return word_f1(text[slice(*reading.answer)], [text[slice(*row["answer"])]]) >= ALIKE


def main() -> None:
    """Read written questions and write those that are agreed upon."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--written", type=Path, nargs="+", required=True, help="files of eval.training.writer")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rows = [row for file in given.written for row in read_lines(file)]
    rows.sort(key=lambda row: len(row["text"]))
    part = given.out.with_suffix(".part")
    with closing(SpanReader(TrainedPairs("reader", given.weights))) as reader:
        kept = [*agreed(reader.read, rows)]
    with gzip.open(part, "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
    part.replace(given.out)
    answered, own = (sum(bool(row["answer"]) for row in some) for some in (kept, rows))
    told = f"kept {answered} of {own} answered and {len(kept) - answered} of {len(rows) - own} unanswerable questions\n"
    sys.stdout.write(told)


if __name__ == "__main__":
    main()
