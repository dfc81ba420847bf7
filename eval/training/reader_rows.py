"""The training rows of the reader, from the training files of the sets and from made-up tables.

Beside the questions with their own passage many also meet a passage that is near but does not answer it (one that BM25
ranks high, another of the same article, another aspect of the same disease), or stand changed beside their own; and
sentences of the passages are made into questions (`eval.training.clozes`), as are claims of FEVER and SciFact
(`eval.training.claims`). What a language model wrote beside the passages (`eval.training.writer`) may join. Knows no
token and no model.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.training.claims import claim_questions
from eval.training.clozes import changed_rows, cloze_rows
from eval.training.detokenise import detokenised
from eval.training.grids import grid_rows
from eval.training.rows import ReaderRow, dev_texts, plain, read_claims, read_lines
from rag.near import Near

#: How many rows of the sets that are no reading comprehension.
TABLES, HEALTH, CLOZES = 1800, 1000, 6500
#: The share of the answered questions that meet a near miss, and that stand changed beside their own passage.
MISSED, CHANGED = 0.7, 0.6
#: How far down BM25's list near misses are looked for, and from how many of the nearest one is drawn.
DEPTH, NEAREST = 8, 3


def reader_rows(data: Path, seed: int, written: Sequence[Path] = ()) -> list[ReaderRow]:
    """Return all rows, in an order and with choices that ``seed`` gives; ``data`` is the folder of the sets.

    ``written`` are files of `eval.training.writer`. Raises `BadInput` if a file is missing or damaged.
    """
    rng = random.Random(seed)
    dev = dev_texts(data)
    own = [*_squad(data, rng), *_natural(data, rng)]
    own = [row for row in own if plain(row.text) not in dev and plain(row.question) not in dev]
    health = [row for row in _health(data, rng) if plain(row.question) not in dev]
    passages = [*{detokenised(row.text)[0]: detokenised(row.context)[0] for row in own}.items()]
    made = [*near_misses(own, rng), *changed_rows(own, CHANGED, rng), *cloze_rows(passages, CLOZES, rng)]
    rows = [*own, *made, *health, *grid_rows(TABLES, rng), *written_rows(written, dev), *_of_claims(data, dev, rng)]
    rng.shuffle(rows)
    return rows


def written_rows(files: Sequence[Path], dev: Collection[str]) -> Iterator[ReaderRow]:
    """Yield the rows of files that `eval.training.writer` made, without those whose passage or question is in ``dev``.

    Raises `BadInput`.
    """
    for row in (row for file in files for row in read_lines(file)):
        answer = (row["answer"][0], row["answer"][1]) if row["answer"] else None
        if plain(row["text"]) not in dev and plain(row["question"]) not in dev:
            source = "written" if answer else "written-none"
            yield ReaderRow(row["question"], row["context"], row["text"], answer, answer is not None, source)


def _of_claims(data: Path, dev: Collection[str], rng: random.Random) -> Iterator[ReaderRow]:
    """Yield claims as questions, and some of them beside a near miss or changed."""
    claims = [row for name in ("fever_rte", "scifact_rte") for row in read_claims(data, name)]
    asked = [*claim_questions([row for row in claims if plain(row.claim) not in dev], rng)]
    some = rng.sample(asked, len(asked) // 2)
    yield from (*asked, *near_misses(some, rng), *changed_rows(some, CHANGED, rng))


def _squad(data: Path, rng: random.Random) -> Iterator[ReaderRow]:
    for row in read_lines(data / "squad" / "train.jsonl.gz"):
        question = row["question"] if rng.random() < 0.85 else row["question"].rstrip(" ?").lower()
        yield _from(row, question, _first_answer(row), rng, "squad")


def _natural(data: Path, rng: random.Random) -> Iterator[ReaderRow]:
    for row in read_lines(data / "nq_qed" / "train.jsonl.gz"):
        question = row["question"]
        if rng.random() < 0.4:
            question = question[0].upper() + question[1:] + "?"
        answer = _first_answer(row)
        if rng.random() < 0.5:
            text, places = detokenised(row["context"])
            row["title"] = detokenised(row["title"])[0]
            row["context"] = text
            answer = (places[answer[0]], places[answer[1]]) if answer else None
        yield _from(row, question, answer, rng, "nq")


def _first_answer(row: dict[str, Any]) -> tuple[int, int] | None:
    if not row["answers"]:
        return None
    first = row["answers"][0]
    return first["answer_start"], first["answer_start"] + len(first["text"])


def _from(
    row: dict[str, Any], question: str, answer: tuple[int, int] | None, rng: random.Random, source: str
) -> ReaderRow:
    context = row["title"] if rng.random() < 0.6 else ""
    return ReaderRow(question, context, row["context"], answer, answer is not None, source)


def near_misses(rows: Sequence[ReaderRow], rng: random.Random) -> Iterator[ReaderRow]:
    """Yield for most answered rows the question beside a near passage in which the answer does not stand."""
    passages = [*{row.text: row.context for row in rows}.items()]
    near = Near([f"{context} {text}" for text, context in passages])
    for row in rows:
        if row.answer is None or rng.random() >= MISSED:
            continue
        said = plain(row.text[slice(*row.answer)])
        found = [passages[n] for n in near.nearest(row.question, DEPTH)]
        fit = [(text, context) for text, context in found if _differs(text, row.text) and said not in plain(text)]
        if fit:
            text, context = rng.choice(fit[:NEAREST])
            yield ReaderRow(row.question, context, text, None, False, f"{row.source}-near")


def _differs(text: str, other: str) -> bool:
    """Say whether two passages are not one in two ways of writing."""
    return plain(text)[:80] != plain(other)[:80]


def _health(data: Path, rng: random.Random) -> Iterator[ReaderRow]:
    """Yield health questions beside their passage, and beside one about another aspect of the same thing."""
    corpus = {row["_id"]: row for row in read_lines(data / "medquad" / "corpus.jsonl.gz")}
    asked = [row for row in read_lines(data / "medquad" / "train.jsonl.gz") if row["corpus_id"] in corpus]
    by_title: dict[str, list[dict[str, Any]]] = {}
    for row in asked:
        by_title.setdefault(corpus[row["corpus_id"]]["title"], []).append(row)
    for row in rng.sample(asked, min(HEALTH, len(asked))):
        passage = corpus[row["corpus_id"]]
        question = row["question"].replace(" ?", "?").replace("What is (are)", "What is").replace("??", "?")
        yield ReaderRow(question, passage["title"], passage["text"], None, True, "health")
        others = [o for o in by_title[passage["title"]] if o["qtype"] != row["qtype"]]
        if others:
            text = corpus[rng.choice(others)["corpus_id"]]["text"]
            yield ReaderRow(question, passage["title"], text, None, False, "health-near")
