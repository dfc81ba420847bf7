"""`citewell tune`: questions -> what a search finds for each -> steps that learn -> each judged on questions held back.

The steps go from cheap to dear, each on top of what was taken before it: the weights of the parts, the query adapter
(closed form), the projection of late interaction (by gradient), the weight of the built-in reader as a reranker. A step
is taken only if the real search ranks the held questions significantly better with it. Knows how a tuning is learnt and
judged; keeping it is for the catalog.
"""

from __future__ import annotations

import fcntl
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eval.statistics import Difference, Numbers, compare
from eval.tuning.fitting import Pair, fit_adapter, fit_reader, fit_weights
from eval.tuning.mining import Mined, answered, gain, kept_lines, mine, plan_of, reread
from eval.tuning.projection import Lesson, fit_projection
from eval.tuning.questions import (
    Sought,
    as_sought,
    made_questions,
    read_questions,
    sample_passages,
    written_question,
)
from rag.assembly import Citewell
from rag.errors import BadInput, Conflict
from rag.interaction import Interaction
from rag.protocols import Generator, Reranker
from rag.records import Collection, Passage, digest
from rag.tuning import Tuned, Tuning

#: The steps that there are, and those that are tried unless others are wished: the reader makes every search slower.
STEPS = ("weights", "adapter", "projection", "reranker")
USUAL = STEPS[:3]
#: Questions as people ask them, the best judges first; the others are made of the words of the passages.
REAL = ("file", "generator")
#: A step is taken if it is better with a p value below this, divided by the number of steps that are tried.
LEVEL = 0.05
#: Fewest questions to teach and to judge by.
FEWEST = 20
#: Most passages that questions are made of, and most hard negatives of a question.
PASSAGES, NEGATIVES = 400, 15
#: Most questions whose passages the reader reads to be weighed.
READ = 300
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be done: with which questions, which steps, and how chance is drawn."""

    questions: Path | None = None
    steps: tuple[str, ...] = USUAL
    passages: int = PASSAGES
    seed: int = 1


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step brought on the held questions: nDCG@10 before and after, or None after if it learnt nothing."""

    name: str
    before: float
    after: float | None
    difference: Difference | None
    taken: bool
    learnt: str

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        d = self.difference
        told = {"mean": d.mean, "low": d.low, "high": d.high, "p": d.p_value} if d else None
        return {
            "name": self.name, "ndcg@10_before": self.before, "ndcg@10_after": self.after, "difference": told,
            "taken": self.taken, "learnt": self.learnt,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run: its steps, the ``tuning`` that was kept if any step was taken, and whether it is in force."""

    collection: str
    sources: dict[str, int]
    held: int
    left_out: list[str]
    steps: list[StepReport]
    tuning: Tuning | None = None
    promoted: bool = False

    def report(self) -> dict[str, Any]:
        """Return how the tuning was learnt and judged, as plain values."""
        steps = [step.as_json() for step in self.steps]
        return {"questions": self.sources, "held": self.held, "left_out": len(self.left_out), "steps": steps}


def tune(citewell: Citewell, collection: Collection, wish: Wish, *, promote: bool, tell: Tell) -> Outcome:
    """Learn a tuning for a collection, judge it, keep it if it helps, and with ``promote`` put it in force.

    A run that was stopped goes on where it was if the same is wished of an unchanged collection. Raises `BadInput` for
    too few questions, or for the step reranker where no reader can rank, and `Conflict` while another process tunes the
    collection.
    """
    if "reranker" in wish.steps:
        _head(citewell)
    with _workplace(citewell, collection, wish) as folder:
        questions, left_out = _questions(citewell, collection, wish, folder, tell)
        taught = [question for question in questions if not question.is_held]
        held = _judges([question for question in questions if question.is_held])
        if min(len(taught), len(held)) < FEWEST:
            raise BadInput(
                f"There are {len(taught)} questions to learn from and {len(held)} to judge by; {FEWEST} of each are "
                "needed. All questions about one document are on one side: give questions about more documents."
            )
        tuned, steps = _learn(citewell, collection, wish, taught, held, folder, tell)
        sources = dict(sorted(Counter(question.source for question in questions).items()))
        outcome = Outcome(collection.name, sources, len(held), left_out, steps)
        if not any(step.taken for step in steps):
            return outcome
        catalog = citewell.store.catalog
        kept = catalog.add_tuning(collection.id, citewell.embedder.fingerprint, tuned, outcome.report())
        if promote:
            kept = catalog.promote(kept.id)
        return replace(outcome, tuning=kept, promoted=promote)


def _judges(held: Sequence[Sought]) -> list[Sought]:
    """Return the held questions that judge: the owner's if there are any, else a model's, else all."""
    for source in REAL:
        if found := [question for question in held if question.source == source]:
            return found
    return [*held]


@contextmanager
def _workplace(citewell: Citewell, collection: Collection, wish: Wish) -> Iterator[Path]:
    """Yield the folder of a run, which stays if the run is stopped and goes when it has ended."""
    root = citewell.store.tuning_folder / collection.id
    root.mkdir(parents=True, exist_ok=True)
    pulse = citewell.store.catalog.pulse(collection.id)
    asked = wish.questions.read_bytes() if wish.questions and wish.questions.is_file() else b""
    facts = (*wish.steps, str(wish.passages), str(wish.seed), str(pulse.commits), citewell.embedder.fingerprint)
    folder = root / digest(*facts, asked.hex(), citewell.generator.name)
    with (root / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"Another process is tuning {collection.name}; wait until it has ended.") from None
        for other in root.iterdir():
            if other.is_dir() and other != folder:
                shutil.rmtree(other)
        folder.mkdir(exist_ok=True)
        try:
            yield folder
            shutil.rmtree(folder)
        except FileNotFoundError:
            if folder.is_dir():
                raise
            raise Conflict(f"Documents of {collection.name} were purged meanwhile; run the command again.") from None


def _questions(
    citewell: Citewell, collection: Collection, wish: Wish, folder: Path, tell: Tell
) -> tuple[list[Sought], list[str]]:
    """Return the owner's questions and those that are made of passages, and why some could not be used."""
    given, left_out = [], []
    if wish.questions is not None:
        read = read_questions(wish.questions, citewell.store.catalog, collection)
        given, left_out = read.questions, read.left_out
    passages = sample_passages(citewell.store.catalog, collection, wish.passages, random.Random(wish.seed))
    made = made_questions(passages, random.Random(wish.seed))
    if citewell.interpreter.writer is not None:
        made += _written(citewell, citewell.interpreter.writer, passages, folder / "written.jsonl", tell)
    return [*given, *made], left_out


def _written(
    citewell: Citewell, generator: Generator, passages: Sequence[Passage], kept: Path, tell: Tell
) -> Iterator[Sought]:
    """Yield the questions that the language model writes, or has written before the run was stopped."""
    seconds = citewell.store.settings.generator.total_timeout
    known: dict[str, str] = dict(kept_lines(kept))
    with kept.open("a", encoding="utf-8") as stream:
        for number, passage in enumerate(passages, 1):
            if passage.chunk_id not in known:
                known[passage.chunk_id] = written_question(passage, generator, seconds)
                stream.write(json.dumps([passage.chunk_id, known[passage.chunk_id]]) + "\n")
                stream.flush()
                _tell_tenth(tell, "questions written", number, len(passages))
            if text := known[passage.chunk_id]:
                yield as_sought(text, passage)


def _learn(
    citewell: Citewell,
    collection: Collection,
    wish: Wish,
    taught: Sequence[Sought],
    held: Sequence[Sought],
    folder: Path,
    tell: Tell,
) -> tuple[Tuned, list[StepReport]]:
    """Try the steps one after the other; return what searches would go by, and what each step brought."""
    current = citewell.retriever.tuned([collection])
    tell(f"Looking for {len(taught)} questions to learn from.")
    mined = mine(
        citewell, collection, current, taught, folder / "mined.jsonl", lambda n, of: _tell_tenth(tell, "found", n, of)
    )
    material = Material(citewell, collection, list(taught), mined, folder, wish.seed)
    before = _judged(citewell, collection, held, current)
    reports = []
    for name in wish.steps:
        tell(f"Learning the {name}.")
        tried, learnt = LEARNERS[name](material, current, tell)
        if tried is None:
            reports.append(StepReport(name, float(before.mean()), None, None, False, learnt))
            continue
        after = _judged(citewell, collection, held, tried)
        difference = compare(after, before)
        taken = difference.mean > 0 and difference.p_value < LEVEL / len(wish.steps)
        reports.append(StepReport(name, float(before.mean()), float(after.mean()), difference, taken, learnt))
        if taken:
            current, before = tried, after
    return current, reports


def _judged(citewell: Citewell, collection: Collection, held: Sequence[Sought], tuned: Tuned) -> Numbers:
    """Return nDCG@10 of the real search for each held question."""
    values = []
    for question in held:
        passages = citewell.retriever.retrieve(plan_of(citewell, question, collection), tuned=tuned).passages
        values.append(gain([answered(question, passage) for passage in passages], len(question.targets)))
    return np.array(values)


# -- the steps ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Material:
    """What the steps learn from: questions with what the search found for each."""

    citewell: Citewell
    collection: Collection
    questions: list[Sought]
    mined: list[Mined]
    folder: Path
    seed: int

    @property
    def looked_at(self) -> int:
        return self.citewell.store.settings.retrieval.late_candidates

    @property
    def judged_by(self) -> list[tuple[Sought, Mined]]:
        """The questions that weights are fitted on: those of people and of models, if there are enough of them."""
        asked = [*zip(self.questions, self.mined, strict=True)]
        real = [(question, mined) for question, mined in asked if question.source in REAL]
        return real if len(real) >= FEWEST else asked

    def found(self) -> Iterator[tuple[Sought, Mined]]:
        """Yield the questions for which something that answers is among the candidates."""
        for question, mined in zip(self.questions, self.mined, strict=True):
            if any(answer >= 0 for answer in mined.answers):
                yield question, mined


Learnt = tuple[Tuned | None, str]
NOTHING: Learnt = (None, "nothing that helps the questions it was learnt from")


def _learn_weights(material: Material, current: Tuned, tell: Tell) -> Learnt:
    del tell
    usual = current.dense_weight, current.late_weight
    dense, late = fit_weights([mined for _, mined in material.judged_by], usual, material.looked_at)
    if (dense, late) == usual:
        return NOTHING
    return replace(current, dense_weight=dense, late_weight=late), f"dense {dense:g}, late {late:g}"


def _learn_adapter(material: Material, current: Tuned, tell: Tell) -> Learnt:
    del tell
    catalog, embedder = material.citewell.store.catalog, material.citewell.embedder
    pairs = []
    for question, mined in material.found():
        asked = embedder.encode([question.text], role="query").vectors[0]
        vectors = catalog.vectors(material.collection.id, embedder.fingerprint, mined.seqs)
        if len(vectors) < len(mined.seqs):  # a document was purged meanwhile
            continue
        candidates = np.array([vectors[seq] for seq in mined.seqs], dtype=np.float32)
        right = candidates[[answer >= 0 for answer in mined.answers]]
        pairs.append(Pair(asked, right[int((right @ asked).argmax())], candidates, mined, question.group))
    adapter = fit_adapter(pairs, (current.dense_weight, current.late_weight), material.looked_at)
    return NOTHING if adapter is None else (replace(current, adapter=adapter), f"a rotation from {len(pairs)} pairs")


def _learn_projection(material: Material, current: Tuned, tell: Tell) -> Learnt:
    citewell, collection = material.citewell, material.collection
    embedder, catalog = citewell.embedder, citewell.store.catalog
    interaction = Interaction(catalog, embedder.fingerprint, embedder.dimension)
    lexical = citewell.indexes_of(collection).lexical
    lessons = []
    for question, mined in material.found():
        answers = [place for place, answer in enumerate(mined.answers) if answer >= 0][:1]
        wrong = [place for place, answer in enumerate(mined.answers) if answer < 0][:NEGATIVES]
        chosen = [mined.seqs[place] for place in (*answers, *wrong)]
        codes = catalog.codes(collection.id, embedder.fingerprint, embedder.dimension, chosen)
        tokens = embedder.encode([question.text], role="query", tokens=True).tokens[0]
        weights = interaction.weights(question.text, tokens.spans, [lexical])
        if wrong and weights.sum() > 0 and all(len(codes.get(seq, ())) for seq in chosen):
            lessons.append(Lesson(tokens.vectors, weights, tuple(codes[seq] for seq in chosen)))
    if len(lessons) < FEWEST:
        return NOTHING
    projection = fit_projection(
        lessons, embedder.dimension, material.seed, material.folder / "projection.pt",
        lambda n, of: tell(f"{n} of {of} passes over {len(lessons)} questions."),
    )  # fmt: skip
    return replace(current, projection=projection), f"a projection from {len(lessons)} questions"


def _learn_reranker(material: Material, current: Tuned, tell: Tell) -> Learnt:
    """Weigh the built-in reader by what it says of the best passages of each question."""
    asked = [question for question, _ in material.judged_by]
    chosen = random.Random(material.seed).sample(asked, min(READ, len(asked)))
    alone = replace(current, reader_weight=0.0)
    read = reread(
        material.citewell, _head(material.citewell), material.collection, alone, chosen,
        material.folder / "read.jsonl",
        lambda n, of: _tell_tenth(tell, "questions read", n, of),
    )  # fmt: skip
    weight = fit_reader(read)
    if not weight:
        return NOTHING
    seconds = float(np.median([one.seconds for one in read]))
    return replace(current, reader_weight=weight), f"reader {weight:g}; {1000 * seconds:.0f} ms more for a search"


def _head(citewell: Citewell) -> Reranker:
    if citewell.head is None or citewell.reranker not in {None, citewell.head}:
        raise BadInput(
            "The step reranker weighs the trained reader, which does not rank here; set generator.reader to 'trained' "
            "and leave retrieval.reranker empty, or leave the step out."
        )
    return citewell.head


LEARNERS: dict[str, Callable[[Material, Tuned, Tell], Learnt]] = {
    "weights": _learn_weights, "adapter": _learn_adapter, "projection": _learn_projection,
    "reranker": _learn_reranker,
}  # fmt: skip


def _tell_tenth(tell: Tell, what: str, number: int, of: int) -> None:
    if 10 * number // of > 10 * (number - 1) // of:
        tell(f"{number} of {of} {what}.")
