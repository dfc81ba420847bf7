"""The seeded experiment: a system broken on purpose in four ways, and one that nobody touched, seen by the report.

Everything is real: the embedder, the indexes, the trained reader and judge, the suite, a file of gates, and a language
model's server over HTTP that says what the test wrote. Fifty documents, each about the pool of one town, and a golden
question about each.
"""

from __future__ import annotations

import itertools
import random
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.findings import Findings, findings_of
from eval.gates import read_gates
from eval.report import LEASE, run_report, usual_parts
from eval.runs import Cause, Request, plain
from rag.assembly import Citewell, open_citewell
from rag.golden import GoldenDocument, Proposed
from rag.protocols import Embedder, Hits
from rag.records import Block, Chunk, Kind, ParsedDocument
from rag.retrieval import Indexes
from rag.settings import Settings, load_settings
from tests.scripted_llm import CHAT, ScriptedLLM, stream

COUNT, FIFTH, THIRD = 50, 10, 17
STARTS, ENDS = "Ash Bel Car Dun Elm Far Glen Hart Kirk Lin".split(), "bury ford ham ley ton wick".split()
TOWNS = ["".join(parts) for parts in random.Random(7).sample([*itertools.product(STARTS, ENDS)], COUNT)]
CLOSES = [f"{18 + number % 5}:{11 + 3 * (number // 5):02}" for number in range(COUNT)]
GATES = """
[[gate]]
metric = "correctness"
minimum = 0.9
maximum_drop = 0.05

[[gate]]
metric = "supported"
maximum_drop = 0.05

[[gate]]
metric = "faithfulness"
maximum_drop = 0.05

[[gate]]
metric = "recall@5"
maximum_drop = 0.05

[[gate]]
metric = "ndcg@10"
maximum_drop = 0.05
"""


def about(number: int, closes: str | None = None) -> str:
    return (
        f"The swimming pool of {TOWNS[number]} closes at {closes or CLOSES[number]} on weekdays. "
        f"Children pay half the price of a ticket there."
    )


def question(number: int) -> str:
    return f"When does the swimming pool of {TOWNS[number]} close on weekdays?"


def put(citewell: Citewell, number: int, text: str) -> None:
    """Make a text the content of a document, as a parse of it would."""
    catalog, name = citewell.store.catalog, f"{number}.txt"
    sha = f"{zlib.crc32(text.encode()):064x}"
    version, _ = catalog.accept(catalog.ensure_collection("pools").id, name, sha, len(text))
    assert catalog.claim("t", 60) is not None
    parsed = ParsedDocument.from_blocks([Block(Kind.TEXT, text, 1)], "text/plain", name)
    chunks = [Chunk(e.text, "", e.start, e.end, e.kind, e.page, e.section, 1) for e in parsed.elements]
    encoded = citewell.embedder.encode([text])
    catalog.commit(version.id, "t", parsed, chunks, encoded.vectors, citewell.embedder.fingerprint)


def reported(citewell: Citewell, limit: int | None = None) -> Findings:
    """Make a report as the worker does, with the gates of the settings."""
    settings, catalog = citewell.store.settings, citewell.store.catalog
    asked = catalog.open_report(plain(Request(("pools",), limit=limit)))
    claimed = catalog.claim_report("me", LEASE, asked.id)
    with usual_parts(citewell, read_gates(settings.report.gates)) as parts:
        run_report(citewell, claimed, "me", parts)
    return findings_of(catalog, catalog.report(asked.id))


def settings_of(folder: Path, **values: Any) -> Settings:
    report = {"gates": folder / "gates.toml", "generated": 0, "traffic": 0}
    return load_settings(data=folder / "data", report=report, retrieval={"top_k": 2}, **values)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> Path:
    """A folder with the data of the whole system and its first report, which passes."""
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "gates.toml").write_text(GATES)
    with open_citewell(settings_of(folder), embedder=embedder) as citewell:
        for number in range(COUNT):
            put(citewell, number, about(number))
        golden = [
            Proposed(question(number), CLOSES[number], True, (GoldenDocument(f"{number}.txt"),))
            for number in range(COUNT)
        ]
        citewell.store.catalog.add_golden(citewell.store.catalog.collection("pools").id, golden)
        found = reported(citewell)
    assert found.headlines["correctness"].value == 1
    assert (found.failed, found.verdict.word) == ([], "Passed")
    return folder


@pytest.fixture
def folder(first: Path, tmp_path: Path) -> Path:
    """A copy of it, to be broken."""
    return Path(shutil.copytree(first, tmp_path / "copy"))


@dataclass
class Holed:
    """An index that has lost some of its rows."""

    whole: Any
    lost: list[int] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def search(self, query: Any, k: int, allowed: Any = None) -> Hits:
        found = self.whole.search(query, k, allowed)
        kept = ~np.isin(found.seqs, self.lost)
        return Hits(found.seqs[kept], found.scores[kept])


@dataclass
class Shuffling:
    """A cross-encoder whose scores have nothing to do with the question."""

    name: str = "shuffling"
    window: int = 512

    def lengths(self, question: str, passages: Sequence[str]) -> list[int]:
        return [len(f"{question} {passage}".split()) for passage in passages]

    def score(self, question: str, passages: Sequence[str]) -> list[float]:
        return [float(zlib.crc32(f"{question} {passage}".encode())) for passage in passages]


def sure(found: Findings) -> set[str]:
    return {change.metric for change in found.changes if change.is_sure and change.mean < 0}


def broken(found: Findings) -> set[str]:
    """The metrics of the gates that were not passed."""
    assert found.verdict.word == "Failed"
    return {reason.split()[0] for reason in found.verdict.reasons}


def test_a_fifth_of_the_index_is_gone(folder, embedder):
    """A fifth of the questions fails, all by retrieval."""
    with open_citewell(settings_of(folder), embedder=embedder) as citewell:
        opened, lost = citewell.open_indexes, list(range(1, COUNT + 1, 5))
        citewell.open_indexes = lambda collection: Indexes(
            Holed(opened(collection).dense, lost), Holed(opened(collection).lexical, lost)
        )
        found = reported(citewell)
    assert found.causes == {Cause.RETRIEVAL: FIFTH} | {cause: 0 for cause in Cause if cause is not Cause.RETRIEVAL}
    assert broken(found) >= {"correctness", "recall@5", "ndcg@10"}
    assert found.headlines["recall@5"].value == 0.8


def test_passages_are_shuffled(folder, embedder):
    """What was found is put anywhere: all that failed did so by ranking, though it was among the candidates."""
    with open_citewell(settings_of(folder), embedder=embedder, reranker=Shuffling()) as citewell:
        found = reported(citewell)
    failed = found.causes[Cause.RANKING]
    assert failed > COUNT / 2
    assert sum(found.causes.values()) == failed
    assert broken(found) >= {"correctness", "ndcg@10"}


def test_every_third_answer_has_a_sentence_that_is_made_up(folder, embedder):
    """The model's server invents; first it does not, and that run passes. The judge finds each of those answers."""
    honest = [f"The swimming pool of {town} closes at {time} [1]." for town, time in zip(TOWNS, CLOSES, strict=True)]
    with ScriptedLLM() as server:
        asked = settings_of(folder, generator={"kind": "openai", "base_url": server.base_url, "model": "scripted"})
        with open_citewell(asked, embedder=embedder) as citewell:
            server.on(CHAT, *(stream(said) for said in honest))
            before = reported(citewell)
            made_up = " Nine golden elephants guard its entrance every night [1]."
            server.on(CHAT, *(stream(s, made_up) if n % 3 == 0 else stream(s) for n, s in enumerate(honest)))
            found = reported(citewell)
    assert (before.failed, before.verdict.word) == ([], "Passed")
    assert broken(found) == {"supported", "faithfulness"}
    assert found.headlines["correctness"].value == 1
    assert found.causes == {Cause.READING: THIRD} | {cause: 0 for cause in Cause if cause is not Cause.READING}
    assert all("elephants" in found.answers[one.answer_id].texts.answer.text for one in found.worst)


def test_documents_went_back_to_an_older_version(folder, embedder):
    """A fifth says another time than when their questions were confirmed: the content that answers is missing."""
    with open_citewell(settings_of(folder), embedder=embedder) as citewell:
        for number in range(FIFTH):
            put(citewell, number, about(number, "6:05"))
        found = reported(citewell)
    assert found.causes == {Cause.MISSING: FIFTH} | {cause: 0 for cause in Cause if cause is not Cause.MISSING}
    assert "correctness" in broken(found)
    assert len(found.drifted) == FIFTH


def test_twenty_repeats_of_an_unchanged_system_raise_at_most_one_alarm(folder, embedder):
    with open_citewell(settings_of(folder), embedder=embedder) as citewell:
        repeats = [reported(citewell, 10) for _ in range(20)]
    assert sum(bool(sure(found)) or not found.verdict.passed for found in repeats) <= 1
    assert len(repeats[-1].before) == 20
