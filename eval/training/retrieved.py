"""Questions that were held from training as the product meets them: beside the passages that it finds for them.

All passages of the training files are one collection, and each held question of squad and nq_qed is asked there; once
more without the passages in which its answer stands, so that nothing answers it. Knows no model of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from eval.bench_reader import Asked
from eval.folders import load_corpus
from eval.reading import is_said
from eval.training.rows import ReaderRow
from rag.assembly import Citewell
from rag.reader import READ

#: The sources of the rows that people asked, beside passages that they were asked about.
ASKED = frozenset({"squad", "nq"})
#: How many passages are found, so that enough are left when those that answer are taken out.
DEPTH = 12


def retrieved(
    citewell: Citewell, rows: Sequence[ReaderRow], held: Sequence[ReaderRow], scratch: Path
) -> Iterator[Asked]:
    """Yield the ``held`` questions with the passages found for them among those of ``rows``, with and without answer.

    The corpus is written to the folder ``scratch`` and loaded as `eval.folders` does.
    """
    _write_corpus(rows, scratch)
    name = load_corpus(citewell, scratch).name
    for row in held:
        if row.source not in ASKED:
            continue
        found = citewell.search(citewell.plan(row.question, [name], top_k=DEPTH)).passages
        answers = (row.text[slice(*row.answer)],) if row.answer else ()
        yield Asked(row.question, found[:READ], answers)
        if answers:
            yield Asked(row.question, tuple(p for p in found if not is_said(p.text, answers))[:READ], ())


def _write_corpus(rows: Sequence[ReaderRow], folder: Path) -> None:
    passages = {row.text: row.context for row in rows if row.source in ASKED}
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as out:
        for number, (text, title) in enumerate(passages.items()):
            out.write(json.dumps({"_id": f"t{number}", "title": title, "text": text}) + "\n")
