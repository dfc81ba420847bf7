"""What a search finds for each question, stage by stage: the material that weights and maps are fitted on.

The candidates come from the live index, so that those that are no answer are the hard negatives of this very
collection. Kept as plain numbers, question by question, so that a run that was stopped goes on. Knows no fitting.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eval.tuning.questions import Sought
from rag.assembly import Citewell
from rag.records import Collection, Passage, Plan
from rag.retrieval import by_score, fuse, joined
from rag.tuning import Tuned

#: How deep a ranking is judged.
DEPTH = 10
Tell = Callable[[int, int], None]


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


def mine(
    citewell: Citewell, collection: Collection, tuned: Tuned, questions: Sequence[Sought], kept: Path, tell: Tell
) -> list[Mined]:
    """Return what is found for each question; what ``kept`` holds already is not looked for again."""
    found = [Mined(**row) for row in kept_lines(kept)][: len(questions)]
    with kept.open("a", encoding="utf-8") as stream:
        for number in range(len(found), len(questions)):
            found.append(_mined(citewell, collection, tuned, questions[number]))
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
