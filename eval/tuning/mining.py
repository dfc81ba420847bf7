"""What a search finds for each question, stage by stage: the material that weights and maps are fitted on.

The candidates come from the live index, so that those that are no answer are the hard negatives of this very
collection. Kept as plain numbers, question by question, so that a run that was stopped goes on. Knows no fitting.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from eval.tuning.questions import Sought
from rag.assembly import Citewell
from rag.protocols import Reranker
from rag.records import Collection, Passage, Plan
from rag.retrieval import by_score, fuse, joined
from rag.tuning import Tuned

#: How deep a ranking is judged.
DEPTH = 10
Tell = Callable[[int, int], None]
RowT = TypeVar("RowT", "Mined", "Reread")


@dataclass(frozen=True, slots=True)
class Mined:
    """The candidates of a question: ``seqs``, what each stage said to each (None: nothing), which target each is.

    ``answers`` has the number of a target, or -1 for what is none: a hard negative. ``targets`` counts them.
    """

    seqs: list[int]
    dense: list[float | None]
    lexical: list[float | None]
    late: list[float | None]
    answers: list[int]
    targets: int


def plan_of(citewell: Citewell, question: Sought, collection: Collection, top_k: int = DEPTH) -> Plan:
    """Return the plan for a question as it is: no model takes it apart."""
    bare = {"rewrite": False, "decompose": False, "multi_query": False, "hyde": False}
    return citewell.plan(question.text, [collection.name], top_k=top_k, parts=bare)


@dataclass(frozen=True, slots=True)
class Reread:
    """The best passages of a question, best first: their ``scores``, and what the built-in reader says of each.

    ``answers`` and ``targets`` are those of `Mined`; ``seconds`` is how long the reader took.
    """

    scores: list[float]
    log_odds: list[float]
    answers: list[int]
    targets: int
    seconds: float


def mine(
    citewell: Citewell, collection: Collection, tuned: Tuned, questions: Sequence[Sought], kept: Path, tell: Tell
) -> list[Mined]:
    """Return what is found for each question; what ``kept`` holds already is not looked for again."""
    return _each(Mined, lambda question: _mined(citewell, collection, tuned, question), questions, kept, tell)


def reread(
    citewell: Citewell, head: Reranker, collection: Collection, tuned: Tuned, questions: Sequence[Sought], kept: Path,
    tell: Tell,
) -> list[Reread]:  # fmt: skip
    """Return what ``head`` says of the best passages of each question; ``kept`` holds some of it already."""
    return _each(Reread, lambda question: _reread(citewell, head, collection, tuned, question), questions, kept, tell)


def _each(
    row: Callable[..., RowT], look: Callable[[Sought], RowT], questions: Sequence[Sought], kept: Path, tell: Tell
) -> list[RowT]:
    """Return a row for each question: those that ``kept`` holds, and new ones, each kept as soon as it is there."""
    found = [row(**values) for values in kept_lines(kept)][: len(questions)]
    with kept.open("a", encoding="utf-8") as stream:
        for number in range(len(found), len(questions)):
            found.append(look(questions[number]))
            stream.write(json.dumps(asdict(found[-1])) + "\n")
            stream.flush()
            tell(number + 1, len(questions))
    return found


def kept_lines(file: Path) -> Iterator[Any]:
    """Yield what a run has kept, a JSON value a line; a line that a crash left half written is cut off."""
    if not file.is_file():
        return
    whole = 0
    with file.open("r+", encoding="utf-8") as stream:
        while (line := stream.readline()).endswith("\n"):
            whole = stream.tell()
            yield json.loads(line)
        stream.truncate(whole)


def _mined(citewell: Citewell, collection: Collection, tuned: Tuned, question: Sought) -> Mined:
    candidates, late = citewell.retriever.evidence(plan_of(citewell, question, collection), tuned)
    keys = by_score(candidates.fused)
    passages = citewell.store.catalog.passages(collection.id, [seq for _, seq in keys])
    keys = [key for key in keys if key[1] in passages]
    return Mined(
        [seq for _, seq in keys],
        [candidates.dense.get(key) for key in keys],
        [candidates.lexical.get(key) for key in keys],
        [late.get(key) for key in keys],
        [answered(question, passages[seq]) for _, seq in keys],
        len(question.targets),
    )


def _reread(citewell: Citewell, head: Reranker, collection: Collection, tuned: Tuned, question: Sought) -> Reread:
    wanted = citewell.store.settings.retrieval.rerank_candidates
    found = citewell.retriever.retrieve(plan_of(citewell, question, collection, wanted), tuned=tuned).passages
    begun = time.perf_counter()
    said = head.score(question.text, [passage.indexed_text for passage in found])
    answers = [answered(question, passage) for passage in found]
    return Reread(
        [passage.score for passage in found], [*said], answers, len(question.targets), time.perf_counter() - begun
    )


def answered(question: Sought, passage: Passage) -> int:
    """Return the number of the target that a passage is, -1 if it is none."""
    return next((number for number, target in enumerate(question.targets) if target.holds(passage)), -1)


def gain(answers: Sequence[int], targets: int) -> float:
    """Return nDCG@10 (Järvelin and Kekäläinen, ACM TOIS 20(4), 2002) of a ranking with targets found once each.

    ``answers`` are those of `Mined`, best first; a target counts where it is found first.
    """
    seen: set[int] = set()
    total = 0.0
    for rank, answer in enumerate(answers[:DEPTH]):
        if answer >= 0 and answer not in seen:
            seen.add(answer)
            total += 1 / math.log2(rank + 2)
    best = sum(1 / math.log2(rank + 2) for rank in range(min(targets, DEPTH)))
    return total / best if best else 0.0


def ranked(mined: Mined, dense_weight: float, late_weight: float, looked_at: int) -> list[int]:
    """Return the ``answers`` of a question's candidates in the order that weights would give them.

    Goes through the functions of the search itself; the second hop is not there.
    """
    keys = [("", seq) for seq in mined.seqs]
    dense, lexical, late = (_said(keys, said) for said in (mined.dense, mined.lexical, mined.late))
    fused = fuse(dense, lexical, dense_weight)
    best = by_score(fused)[:looked_at]
    scores = joined(fused, best, {key: late[key] for key in best if key in late}, late_weight)
    answers = dict(zip(keys, mined.answers, strict=True))
    return [answers[key] for key in by_score(scores)]


def _said(keys: Sequence[tuple[str, int]], said: Sequence[float | None]) -> Mapping[tuple[str, int], float]:
    return {key: score for key, score in zip(keys, said, strict=True) if score is not None}
