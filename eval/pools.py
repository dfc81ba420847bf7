"""Data sets in BEIR layout joined into one, so that passages have more company than in any set alone.

Writes the same bytes for the same sets, so that what was loaded once is found again. Knows no collection.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.folders import Question, read_rows


def join(folders: Sequence[Path], target: Path, passages: int | None = None) -> int:
    """Write the corpora of ``folders`` into ``target``, one after the other, and return how many rows that are.

    The first ``passages`` rows only, if that is given.
    """
    rows = itertools.chain.from_iterable(read_rows(folder, "corpus") for folder in folders)
    return _write(target / "corpus.jsonl", itertools.islice(rows, passages))


def take(folders: Sequence[Path], target: Path, passages: int) -> int:
    """Write ``passages`` rows of ``folders``, in turn from each, into ``target``, and return how many there were."""
    turns = itertools.zip_longest(*(read_rows(folder, "corpus") for folder in folders))
    return _write(target / "corpus.jsonl", itertools.islice((row for turn in turns for row in turn if row), passages))


def write_questions(target: Path, questions: Sequence[Question]) -> None:
    """Write questions and what counts as right for them beside a corpus."""
    _write(target / "queries.jsonl", [{"_id": question.id, "text": question.text} for question in questions])
    judged = [f"{q.id}\t{passage}\t{grade}\n" for q in questions for passage, grade in q.relevant.items()]
    (target / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged), encoding="utf-8")


def _write(file: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    file.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with file.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            written += 1
    return written
