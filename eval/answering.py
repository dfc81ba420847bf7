"""How well the product answers: the questions of a folder, asked one after the other, all the way through the product.

Each goes through `Citewell.stream`, as those of users do: understood, looked for, written by the generator that the
settings choose, cited and checked. What is said is kept as JSON lines until the last question is answered, so that a
run that was interrupted goes on. Whether a quote stands where its citation says is looked up in the catalog again.
Knows no formula (`eval.answer_metrics`) and no document but rows of a corpus in BEIR layout.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

import rag
from eval.answer_metrics import Answered, Cited, Known, Said, as_json, metrics, stands
from eval.folders import Progress, conversation, load_corpus, load_reports, read_relevant, read_rows
from eval.judging import Metric
from eval.ranking import CorpusIds, eval_settings
from eval.statistics import SEED
from rag.answers import Answer, Citation, Keeping
from rag.assembly import Citewell, open_citewell
from rag.errors import BadInput
from rag.pipeline import Done, Passages, Restart, Token
from rag.records import Collection, Plan, Ranking, digest
from rag.settings import Settings

PERCENTILES = {"median": 50, "p95": 95}
#: An answer is written, whatever was answered before, and no later one is affected by it.
ALONE = Keeping(store=False, cached=False)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was said to the questions of a folder, which had ``questions`` of them, and by what.

    ``settings`` is the digest of what can change an answer. ``generator`` is what the settings chose; single answers
    may come from the built-in reader in its place.
    """

    answered: Sequence[Answered]
    questions: int
    passages: int
    generator: str
    judge: str
    settings: str

    @property
    def counts(self) -> dict[str, int]:
        """Return how many questions were asked, how many of those nothing answers, and how many got no answer.

        Also how many answers came from the built-in reader in place of the generator, how many sentences were withheld
        as unsupported, and how many answers name documents that contradict each other.
        """
        return {
            "questions": len(self.answered),
            "unanswerable": sum(not one.known.answerable for one in self.answered),
            "abstentions": sum(one.said.abstained for one in self.answered),
            "fallen_back": sum(one.said.generator != self.generator for one in self.answered),
            "withheld": sum(one.said.withheld for one in self.answered),
            "conflicting": sum(bool(one.said.conflicting) for one in self.answered),
        }

    def metrics(self) -> dict[str, Metric]:
        """Return every figure, see `eval.answer_metrics.metrics`."""
        return metrics(self.answered)

    def seconds(self) -> dict[str, dict[str, float]]:
        """Return median and 95th percentile of the seconds to the first token, to the last one and to the end."""
        said = [one.said for one in self.answered]
        times = {
            "seconds_to_first_token": [one.first for one in said],
            "seconds_to_last_token": [one.last for one in said],
            "seconds_to_end": [one.whole for one in said],
        }
        return {
            name: {key: round(float(np.percentile(values, p)), 4) for key, p in PERCENTILES.items()}
            for name, values in times.items()
        }

    def as_json(self) -> dict[str, Any]:
        """Return one object: the figures, each with value, low and high; times, counts and what answered."""
        return {
            **as_json(self.metrics()),
            **self.seconds(),
            **self.counts,
            "passages": self.passages,
            "generator": self.generator,
            "judge": self.judge,
            "settings": self.settings,
        }


def evaluate_answers(
    settings: Settings,
    folder: Path,
    *,
    limit: int | None = None,
    embedded: Progress | None = None,
    asked: Progress | None = None,
) -> Evaluation:
    """Load the corpus of ``folder``, ask its questions (``limit`` of them) and compare what is said with what is known.

    The loaded corpus is kept below the cache folder, so that the next run on it starts at once. ``embedded`` is told of
    passages, or of reports where the corpus has some; ``asked`` of questions. Raises `BadInput` if ``folder`` is not in
    BEIR layout, and what `Citewell.stream` raises.
    """
    questions = read_known(folder)
    chosen = choose(questions, limit)
    with open_citewell(eval_settings(settings)) as citewell:
        load = load_reports if any(known.filters for known in questions) else load_corpus
        collection = load(citewell, folder, embedded)
        with _kept(settings, citewell, collection) as kept:
            said = ask_all(citewell, collection, chosen, kept, asked)
        return Evaluation(
            check_all(citewell, chosen, said),
            len(questions),
            collection.passages,
            citewell.generator.name,
            citewell.judge.name,
            settings.digest(),
        )


# -- the questions ---------------------------------------------------------------------------------------------------


def read_known(folder: Path) -> list[Known]:
    """Return the questions of a folder of which something is known; raises `BadInput`.

    That is: known ``answers``, a relevant passage, or that nothing answers them (``answerable`` is false). One with a
    ``context_id`` is asked about the passages with the same one alone.
    """
    relevant = read_relevant(folder)
    found = [_known(row, relevant.get(str(row["_id"]), {})) for row in read_rows(folder, "queries")]
    known = [one for one in found if one.answers or one.relevant or not one.answerable]
    if not known:
        raise BadInput(
            f"{folder} has no question that anything is known of; its queries need answers, a relevant passage in "
            "qrels.tsv, or answerable false."
        )
    return known


def _known(row: dict[str, Any], grades: dict[str, int]) -> Known:
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"The question {row['_id']!r} has no text.")
    answerable = row.get("answerable", True)
    if not isinstance(answerable, bool):
        raise BadInput(f"The question {row['_id']!r} has an answerable that is neither true nor false.")
    return Known(
        str(row["_id"]),
        text,
        answerable,
        _texts(row, "answers") if answerable else (),
        _texts(row, "answer_parts") if answerable else (),
        _texts(row, "gold_sentences") if answerable else (),
        frozenset(key for key, grade in grades.items() if grade > 0),
        {"context_id": str(row["context_id"])} if row.get("context_id") else {},
        conversation(row),
    )


def _texts(row: dict[str, Any], name: str) -> tuple[str, ...]:
    values = row.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BadInput(f"The question {row['_id']!r} has {name} that are no list of texts.")
    return tuple(values)


def choose(questions: Sequence[Known], limit: int | None) -> list[Known]:
    """Return ``limit`` of the questions in their order: by chance, but always the same ones."""
    if limit is None or limit >= len(questions):
        return list(questions)
    places = np.random.default_rng(SEED).choice(len(questions), limit, replace=False)
    return [questions[place] for place in sorted(places)]


# -- asking ----------------------------------------------------------------------------------------------------------


def ask_all(
    citewell: Citewell,
    collection: Collection,
    questions: Sequence[Known],
    kept: Kept | None = None,
    asked: Progress | None = None,
) -> list[Said]:
    """Return what is said to each question, asked one after the other; what is ``kept`` is not asked again."""
    return asyncio.run(_ask_all(citewell, collection, questions, kept or Kept({}), asked))


async def _ask_all(
    citewell: Citewell, collection: Collection, questions: Sequence[Known], kept: Kept, asked: Progress | None
) -> list[Said]:
    ids = CorpusIds(citewell, collection.name)
    found = []
    try:
        for number, known in enumerate(questions, 1):
            said = kept.said.get((known.id, known.text))
            if said is None:
                plan = citewell.plan(known.text, [collection.name], known.filters, history=known.history)
                said = await _ask(citewell, plan, known.id, ids)
                kept.add(known, said)
            found.append(said)
            if asked:
                asked(number, len(questions))
    finally:
        await citewell.generator.aclose()
    return found


async def _ask(citewell: Citewell, plan: Plan, question: str, ids: CorpusIds) -> Said:
    heard = await hear(citewell, plan, ALONE)
    return _said(heard.answer, question, ids, (heard.first, heard.last, heard.whole))


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer with what was found for it, and the seconds until its first and last token and until all was there.

    ``prompt_tokens`` is the size of what the generator was given.
    """

    answer: Answer
    ranking: Ranking
    prompt_tokens: int
    first: float
    last: float
    whole: float


async def hear(citewell: Citewell, plan: Plan, keeping: Keeping) -> Heard:
    """Ask one question and take the time; of a generator that failed, only what is said in its place counts.

    Raises what `Citewell.stream` raises.
    """
    start = time.perf_counter()
    first = last = 0.0
    ranking: Ranking | None = None
    async with aclosing(citewell.stream(plan, keeping=keeping)) as events:
        async for event in events:
            now = time.perf_counter() - start
            if isinstance(event, Passages):
                ranking = event.ranking
            elif isinstance(event, Restart):
                first = 0.0
            elif isinstance(event, Token):
                first, last = first or now, now
            elif isinstance(event, Done) and ranking is not None:
                return Heard(event.answer, ranking, event.prompt.tokens if event.prompt else 0, first, last, now)
    raise AssertionError("a stream of events begins with Passages and ends with Done")


def _said(answer: Answer, question: str, ids: CorpusIds, seconds: tuple[float, float, float]) -> Said:
    alike = {passage.chunk_id: tuple(ids.alike(passage)) for passage in answer.passages}
    checkable = [claim for claim in answer.claims if claim.checkable]
    plain = " ".join(claim.text for claim in answer.claims) or answer.text
    return Said(
        question,
        "" if answer.abstained else plain,
        answer.short.text if answer.short else None,
        answer.abstained,
        tuple(claim.support for claim in checkable),
        sum(claim.supported for claim in checkable),
        tuple(_cited(citation, alike) for citation in answer.citations),
        tuple(_cited(side.citation, alike) for conflict in answer.conflicts for side in conflict.statements),
        answer.withheld,
        answer.generator,
        *seconds,
    )


def _cited(citation: Citation, alike: Mapping[str, tuple[str, ...]]) -> Cited:
    return Cited(
        alike.get(citation.chunk_id, citation.section[:1]),  # what stands around a passage has no copies
        citation.version_id,
        citation.source_start,
        citation.source_end,
        citation.quote,
        tuple((cell.start, cell.end, cell.text) for cell in citation.cells),
    )


def check_all(citewell: Citewell, questions: Sequence[Known], said: Sequence[Said]) -> list[Answered]:
    """Return what was said to the questions with what the stored texts say of each quote; raises `NotFound`."""
    every = [(*one.citations, *one.conflicting) for one in said]
    wanted = {cited.version_id for citations in every for cited in citations}
    texts = {version_id: citewell.store.catalog.source_text(version_id) for version_id in wanted}
    return [
        Answered(known, one, tuple(stands(cited, texts[cited.version_id]) for cited in citations))
        for known, one, citations in zip(questions, said, every, strict=True)
    ]


# -- what was said before an interruption ----------------------------------------------------------------------------


@dataclass(slots=True)
class Kept:
    """What was said so far, by the id and the text of the question; new answers are added to ``file``, if any."""

    said: dict[tuple[str, str], Said]
    file: TextIO | None = None

    def add(self, known: Known, said: Said) -> None:
        """Keep what was said to a question."""
        if self.file:
            self.file.write(json.dumps({"text": known.text, "said": asdict(said)}) + "\n")
            self.file.flush()


@contextmanager
def _kept(settings: Settings, citewell: Citewell, collection: Collection) -> Iterator[Kept]:
    """Yield what an interrupted run has said; a run that comes to its end leaves nothing.

    Only answers to the same corpus, of the same settings and of the same code count.
    """
    parts = collection.id, settings.digest(), citewell.embedder.fingerprint, citewell.generator.name, _code()
    file = settings.cache / "eval" / "answers" / f"{digest(*parts)}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [line for line in _lines(file) if line.endswith("\n")]  # the last one may have been cut off
    said = {key: one for line in lines for key, one in [_read(line)]}
    with file.open("w", encoding="utf-8") as out:
        out.writelines(lines)
        out.flush()
        yield Kept(said, out)
    file.unlink()


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else []


def _read(line: str) -> tuple[tuple[str, str], Said]:
    row = json.loads(line)
    values = row["said"]
    lists = {name: tuple(_cited_again(cited) for cited in values[name]) for name in ("citations", "conflicting")}
    said = Said(**(values | lists | {"supports": tuple(values["supports"])}))
    return (said.question, row["text"]), said


def _cited_again(row: dict[str, Any]) -> Cited:
    lists = {"passages": tuple(row["passages"]), "cells": tuple(tuple(cell) for cell in row["cells"])}
    return Cited(**(row | lists))


def _code() -> str:
    """Return a digest of the core of the product, its models included."""
    hasher = hashlib.sha256()
    for file in sorted(Path(rag.__file__).parent.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            hasher.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return hasher.hexdigest()
