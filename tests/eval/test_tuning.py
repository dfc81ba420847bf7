"""`citewell tune`: what is learnt is right by numbers, what helps is taken, what does not is left, nothing is lost."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from eval.tuning.fitting import Pair, fit_adapter, fit_reader, fit_weights, procrustes
from eval.tuning.mining import Mined, Reread, gain, mine, ranked
from eval.tuning.projection import EPOCHS, Lesson, fit_projection, max_sims
from eval.tuning.questions import made_questions, read_questions, sample_passages
from eval.tuning.run import Wish, tune
from rag.assembly import Citewell, open_citewell
from rag.errors import BadInput, Conflict, GeneratorFailed
from rag.late import max_sim as plain_max_sim
from rag.late import weighted
from rag.protocols import Encoding, Role
from rag.records import Block, Chunk, Collection, Delta, Kind, ParsedDocument, Prompt
from rag.settings import load_settings
from rag.testing import ScriptedGenerator, WordEmbedder
from tests.cli_process import Cli
from tests.rag.passages import passage

DIMENSION = 16
WORDS = [
    f"{a}{b}" for a in ("ba", "co", "di", "fu", "ge", "ho", "ja") for b in ("ln", "rk", "st", "mp", "nd", "x", "z")
]


def rotation(seed: int, dimension: int = DIMENSION) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dimension, dimension)))[0].astype(np.float32)


@dataclass(frozen=True, slots=True)
class Turned(WordEmbedder):
    """An embedder that puts questions elsewhere than passages: turned round by a rotation that nobody is told."""

    dimension: int = DIMENSION

    def encode(
        self, texts: list[str], *, role: Role = "passage", tokens: bool = False, codes: bool = False
    ) -> Encoding:
        found = WordEmbedder.encode(self, texts, role=role, tokens=tokens, codes=codes)
        return replace(found, vectors=found.vectors @ rotation(5)) if role == "query" else found


def put(citewell: Citewell, name: str, text: str, collection: str = "docs") -> None:
    catalog, embedder = citewell.store.catalog, citewell.embedder
    version, _ = catalog.accept(catalog.ensure_collection(collection).id, name, name.rjust(64, "0"), 1)
    catalog.claim("t", 60)
    parsed = ParsedDocument.from_blocks([Block(Kind.TEXT, text, 1)], "text/plain", name)
    chunks = [Chunk(e.text, "", e.start, e.end, e.kind, e.page, e.section, 1) for e in parsed.elements]
    catalog.commit(version.id, "t", parsed, chunks, embedder.encode([text]).vectors, embedder.fingerprint)


def filled(citewell: Citewell, file: Path, documents: int = 120) -> Collection:
    """Return a collection of documents of three words each, and write a question about each: two of its words."""
    rng = random.Random(3)
    rows = []
    for number in range(documents):
        words = rng.sample(WORDS, 3)
        put(citewell, f"d{number}", " ".join(words))
        rows.append({"question": " ".join(words[:2]), "document": f"d{number}"})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return citewell.store.catalog.collection("docs")


@pytest.fixture
def turned(tmp_path):
    """Searches by vectors alone, with an embedder whose questions are turned round."""
    settings = load_settings(data=tmp_path / "data", retrieval={"parts": {"lexical": False, "late": False}})
    with open_citewell(settings, embedder=Turned()) as opened:
        yield opened


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_gain_by_hand():
    """A target counts once, where it is found first, and beyond the tenth place not at all."""
    assert gain([0, -1], 1) == 1
    assert gain([-1, 0, 0], 1) == pytest.approx(1 / np.log2(3))
    assert gain([1, -1, 0], 2) == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3)))
    assert gain([-1] * 10 + [0], 1) == 0
    assert gain([], 3) == 0


@given(seed=st.integers(0, 10_000))
def test_procrustes_finds_the_rotation_that_was_there(seed):
    """From more pairs than dimensions, to rounding; and with a strong pull nothing is turned."""
    asked = np.random.default_rng(seed).normal(size=(60, DIMENSION)).astype(np.float32)
    turn = rotation(seed)
    assert procrustes(asked, asked @ turn, 0) == pytest.approx(turn, abs=1e-3)
    assert procrustes(asked, asked @ turn, 1e9) == pytest.approx(np.eye(DIMENSION), abs=1e-3)


@given(seed=st.integers(0, 10_000))
def test_no_other_rotation_brings_questions_nearer(seed):
    rng = np.random.default_rng(seed)
    asked, answering = rng.normal(size=(2, 30, DIMENSION)).astype(np.float32)
    best = ((asked @ procrustes(asked, answering, 0) - answering) ** 2).sum()
    assert all(((asked @ rotation(seed + n) - answering) ** 2).sum() >= best - 1e-2 for n in range(1, 20))


def test_weights_move_to_the_part_that_knows():
    """Vectors that say nothing and words that know: the dense weight goes; where all are right nothing is changed."""
    rng = random.Random(1)

    def mined(*, lost: bool) -> Mined:
        right = rng.randrange(10)
        dense = [rng.random() if lost else float(n == right) for n in range(10)]
        words = [float(n == right) for n in range(10)]
        return Mined([*range(10)], [*dense], [*words], [None] * 10, [0 if n == right else -1 for n in range(10)], 1)

    assert fit_weights([mined(lost=False) for _ in range(30)], (0.5, 0.6), 50) == (0.5, 0.6)
    dense, late = fit_weights([mined(lost=True) for _ in range(30)], (0.9, 0.6), 50)
    assert dense < 0.5
    assert late == 0.6, "of equal weights those nearest to the usual ones"


def test_the_reader_counts_as_much_as_it_knows():
    """Nothing where it says the opposite or all is right without it, much where it knows all."""
    rng = np.random.default_rng(4)

    def read(*, knows: float) -> Reread:
        right = int(rng.integers(10))
        odds = rng.normal(size=10) + knows * (np.arange(10) == right)
        return Reread([*rng.normal(size=10)], [*odds], [0 if n == right else -1 for n in range(10)], 1, 0.01)

    assert fit_reader([read(knows=-3) for _ in range(200)]) == 0
    assert fit_reader([Reread([2.0, 1.0], [0.0, 5.0], [0, -1], 1, 0.01)]) == 0
    assert fit_reader([read(knows=9) for _ in range(200)]) == 0.8


def test_an_adapter_is_learnt_only_where_it_helps_other_documents():
    rng = np.random.default_rng(2)
    passages = rng.normal(size=(80, DIMENSION)).astype(np.float32)
    passages /= np.linalg.norm(passages, axis=1, keepdims=True)

    def pairs(turn: np.ndarray) -> list[Pair]:
        found = []
        for n in range(80):
            seqs = [n, *((n + rng.choice(79, 20, replace=False) + 1) % 80)]
            answers = [0 if seq == n else -1 for seq in seqs]
            mined = Mined([*map(int, seqs)], [0.0] * 21, [None] * 21, [None] * 21, answers, 1)
            found.append(Pair(passages[n] @ turn, passages[n], passages[seqs], mined, str(n)))
        return found

    assert fit_adapter(pairs(np.eye(DIMENSION, dtype=np.float32)), (0.5, 0.6), 50) is None
    adapter = fit_adapter(pairs(rotation(9)), (0.5, 0.6), 50)
    assert adapter is not None
    assert adapter @ adapter.T == pytest.approx(np.eye(DIMENSION), abs=1e-4)
    assert float(((passages @ rotation(9) @ adapter) * passages).sum(axis=1).mean()) > 0.9


def lessons(count: int = 200) -> list[Lesson]:
    """Questions whose tokens are turned somewhat against the codes of the passages."""
    rng = np.random.default_rng(4)
    turn = np.linalg.qr(np.eye(DIMENSION) + 0.35 * rng.normal(size=(DIMENSION, DIMENSION)))[0]
    found = []
    for _ in range(count):
        tokens = rng.normal(size=(5, DIMENSION)).astype(np.float32)
        tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        right = np.packbits(tokens @ (turn * np.sign(np.diag(turn))) > 0, axis=1)
        wrong = [np.packbits(rng.normal(size=(6, DIMENSION)) > 0, axis=1) for _ in range(6)]
        found.append(Lesson(tokens, np.ones(5, dtype=np.float32), (right, *wrong)))
    return found


def first_places(projection: np.ndarray, some: list[Lesson]) -> float:
    """Return how often the plain twin of MaxSim puts the right passage first."""
    right = 0
    for lesson in some:
        turned = lesson.tokens @ projection
        turned /= np.linalg.norm(turned, axis=1, keepdims=True)
        right += int(weighted(plain_max_sim(turned, lesson.codes), lesson.weights).argmax() == 0)
    return right / len(some)


def test_a_projection_learns_and_goes_on_where_it_was_stopped(tmp_path):
    """A run that dies after each of its passes ends with the very projection of one that did not."""

    class Stopped(Exception):
        pass

    def die(done: int, total: int) -> None:
        del total
        raise Stopped(done)

    whole = fit_projection(lessons(), DIMENSION, 1, tmp_path / "whole.pt", lambda *_: None)
    for _ in range(EPOCHS):
        with pytest.raises(Stopped):
            fit_projection(lessons(), DIMENSION, 1, tmp_path / "parts.pt", die)
    parts = fit_projection(lessons(), DIMENSION, 1, tmp_path / "parts.pt", die)
    assert np.array_equal(parts, whole)
    assert first_places(whole, lessons()) > first_places(np.eye(DIMENSION, dtype=np.float32), lessons())


@given(seed=st.integers(0, 10_000))
@examples(max_examples=20)
def test_torch_scores_as_the_search_does(seed):
    import torch

    lesson = lessons(1)[0]
    weights = np.random.default_rng(seed).random(5).astype(np.float32) + 0.1
    plain = weighted(plain_max_sim(lesson.tokens, lesson.codes), weights)
    scores = max_sims(torch.from_numpy(lesson.tokens), torch.from_numpy(weights), lesson.codes)
    assert scores.tolist() == pytest.approx(plain.tolist(), abs=1e-5)


# -- questions ---------------------------------------------------------------------------------------------------------


def test_questions_of_a_file_point_at_documents_and_words(turned, tmp_path):
    collection = filled(turned, tmp_path / "q.jsonl", 5)
    catalog = turned.store.catalog
    put(turned, "long", "Notice  must be given\nin writing.")
    rows = [
        {"question": " who  gives notice ", "document": ["long", "d1"]},
        {"question": "how?", "document": "long", "text": "GIVEN in writing"},
        {"question": "how?", "document": "long", "text": "by telegram"},
        {"question": "where?", "document": "nowhere.txt"},
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_questions(file, catalog, collection)
    assert [(question.text, len(question.targets)) for question in read.questions] == [
        ("who gives notice", 2),
        ("how?", 1),
    ]
    assert read.left_out == ["Line 3: long has no such text.", "Line 4: nowhere.txt is not in the collection."]
    table = tmp_path / "mine.csv"
    table.write_text('question,document,text\n"who, then?",d1,\n')
    [question] = read_questions(table, catalog, collection).questions
    assert question.text == "who, then?"
    [passage_of] = catalog.passages(collection.id, [*question.targets[0].seqs]).values()
    assert passage_of.document == "d1"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", '{"question": "who?"}\n', "line 1, needs a question and the document"),
        ("a.jsonl", '{"question": "", "document": "d1"}\n', "line 1, needs a question"),
        ("a.jsonl", "[1]\n", "line 1, is no JSON object"),
        ("a.csv", "ask,document\nwho?,d1\n", "line 2, needs a question"),
        ("a.csv", "question,document\nwho?,gone\n", "no question about a document of docs. Line 2: gone is not in"),
        ("a.txt", "", "no question about a document of docs."),
    ],
)
def test_a_bad_file_of_questions_is_told_in_a_sentence(turned, tmp_path, name, content, sentence):
    collection = filled(turned, tmp_path / "q.jsonl", 2)
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=sentence):
        read_questions(tmp_path / name, turned.store.catalog, collection)


def test_questions_are_made_of_headings_and_sentences():
    text = "The harbour master opens the lower lock at six in the morning. Boats wait at the yellow buoy until then."
    passages = [
        passage(text, 1, context="Opening hours of locks"),
        passage(text.replace("lower", "upper"), 2, context="Opening hours of locks"),
        passage(text, 3, context="2019"),
    ]
    made = made_questions(passages, random.Random(1))
    [heading] = [question for question in made if question.source == "heading"]
    assert (heading.text, heading.targets[0].seqs) == ("Opening hours of locks", {1, 2})
    sentences = [question for question in made if question.source == "sentence"]
    assert [[*question.targets[0].seqs] for question in sentences] == [[1], [2], [3]]
    for question in sentences:
        assert 3 <= len(question.text.split()) <= 8
        assert set(question.text.split()) <= {*text.lower().replace(".", "").split(), "upper"}


def test_passages_are_drawn_by_the_seed_and_no_copies(turned):
    text = "one two three four five six seven eight nine ten " * 2
    for number in range(12):
        put(turned, f"d{number}", f"{text} and number {number}")
    put(turned, "copy", f"{text} and number 1")
    collection = turned.store.catalog.collection("docs")
    drawn = sample_passages(turned.store.catalog, collection, 6, random.Random(1))
    assert len({p.seq for p in drawn}) == 6
    assert [p.seq for p in drawn] == [
        p.seq for p in sample_passages(turned.store.catalog, collection, 6, random.Random(1))
    ]
    everything = sample_passages(turned.store.catalog, collection, 50, random.Random(1))
    assert len({p.like_id for p in everything}) == len(everything)


# -- the run -----------------------------------------------------------------------------------------------------------


def test_what_helps_is_put_in_force_and_can_be_taken_back(turned, tmp_path):
    """Questions that are turned round: the adapter turns them back, and the search finds what it did not."""
    collection = filled(turned, tmp_path / "q.jsonl")
    told: list[str] = []
    outcome = tune(turned, collection, Wish(tmp_path / "q.jsonl", ("adapter",)), promote=True, tell=told.append)
    [step] = outcome.steps
    assert step.taken
    assert step.difference is not None
    assert step.difference.p_value < 0.05
    assert step.after > step.before + 0.2
    assert outcome.tuning is not None
    assert outcome.tuning.in_force
    assert outcome.tuning.report["held"] == outcome.held
    assert any("to learn from" in line for line in told)
    assert not [*(turned.store.tuning_folder / collection.id).glob("*/*")], "nothing is left of a run that has ended"
    row = json.loads((tmp_path / "q.jsonl").read_text().splitlines()[7])

    def place() -> int:
        plan = turned.plan(row["question"], ["docs"], top_k=100)
        return [*(p.document for p in turned.search(plan).passages), row["document"]].index(row["document"])

    after = place()
    turned.store.catalog.roll_back(collection.id)
    assert after < place()


def test_the_reader_is_taken_where_it_tells_answers_apart(tmp_path):
    """Two documents of each person with the question's words, one of which answers: the step reranker finds it.

    Searches read again by themselves from then on, until it is taken back. The reader is the one that ships.
    """
    alone = {"parts": {"dense": False, "late": False}, "rerank_candidates": 4}
    settings = load_settings(data=tmp_path / "data", retrieval=alone)
    with open_citewell(settings, embedder=WordEmbedder()) as citewell:
        rows = []
        for number, (first, last) in enumerate(random.Random(7).sample([*combinations(WORDS, 2)], 70)):
            name = f"{first} {last}".title()
            put(citewell, f"{number}a", f"{name} was born in {1850 + number} in a small village near the sea.")
            put(citewell, f"{number}b", f"{name} was born. When, nobody knows; {name} was poor.")
            rows.append({"question": f"When was {name} born?", "document": f"{number}a"})
        (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        collection = citewell.store.catalog.collection("docs")
        outcome = tune(
            citewell, collection, Wish(tmp_path / "q.jsonl", ("reranker",)), promote=True, tell=lambda _: None
        )
        [step] = outcome.steps
        assert step.taken, step
        assert step.learnt.startswith("reader 0.")
        assert outcome.tuning is not None
        assert outcome.tuning.reader_weight

        def stages() -> set[str]:
            return {*citewell.search(citewell.plan(rows[0]["question"], ["docs"]), trace=True).stages}

        assert "reranked" in stages()
        citewell.store.catalog.roll_back(collection.id)
        assert "reranked" not in stages()


def test_the_step_reranker_wants_a_reader(turned, tmp_path):
    settings = turned.store.settings
    words = settings.generator.model_copy(update={"reader": "words"})
    with open_citewell(settings.model_copy(update={"generator": words}), embedder=Turned()) as citewell:
        collection = filled(citewell, tmp_path / "q.jsonl", 3)
        with pytest.raises(BadInput, match=r"set generator\.reader to 'trained'"):
            tune(citewell, collection, Wish(None, ("reranker",)), promote=True, tell=lambda _: None)


def test_what_does_not_help_changes_nothing(settings, tmp_path):
    """An embedder that finds everything already: no step is better, no tuning is kept."""
    with open_citewell(settings, embedder=WordEmbedder()) as citewell:
        collection = filled(citewell, tmp_path / "q.jsonl")
        outcome = tune(citewell, collection, Wish(tmp_path / "q.jsonl"), promote=True, tell=lambda _: None)
        assert [step.taken for step in outcome.steps] == [False, False, False]
        assert outcome.tuning is None
        assert citewell.store.catalog.list_tunings(collection.id) == []


def test_mining_goes_on_where_it_was_stopped_and_ranks_as_the_search_does(turned, tmp_path):
    """A file that ends inside a line is gone on with; with the usual weights the order is the search's own."""
    collection = filled(turned, tmp_path / "q.jsonl", 30)
    questions = read_questions(tmp_path / "q.jsonl", turned.store.catalog, collection).questions
    usual = turned.retriever.tuned([collection])
    kept = tmp_path / "mined.jsonl"
    asked: list[int] = []
    whole = mine(turned, collection, usual, questions, kept, lambda n, _: asked.append(n))
    assert asked == [*range(1, 31)]
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join(lines[:12]) + lines[12][:20])
    asked.clear()
    assert mine(turned, collection, usual, questions, kept, lambda n, _: asked.append(n)) == whole
    assert asked == [*range(13, 31)]
    for question, mined in zip(questions, whole, strict=True):
        found = turned.search(turned.plan(question.text, ["docs"], top_k=10)).passages
        answers = [0 if question.targets[0].holds(passage) else -1 for passage in found]
        assert ranked(mined, usual.dense_weight, usual.late_weight, 50)[:10] == answers


def test_too_few_questions_and_a_second_run_are_told(turned, tmp_path):
    collection = filled(turned, tmp_path / "q.jsonl", 10)
    wish = Wish(tmp_path / "q.jsonl")
    with pytest.raises(BadInput, match=r"to learn from and \d to judge by; 20 of each are needed"):
        tune(turned, collection, wish, promote=True, tell=lambda _: None)
    filled(turned, tmp_path / "q.jsonl")
    refused: list[str] = []

    def again(said: str) -> None:
        def run() -> None:
            with pytest.raises(Conflict, match="Another process is tuning docs") as failed:
                tune(turned, collection, wish, promote=True, tell=lambda _: None)
            refused.append(failed.value.message)

        if not refused:
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()

    tune(turned, collection, wish, promote=False, tell=again)
    assert len(refused) == 1


def test_the_command_tunes_promotes_and_takes_back(tmp_path):
    """The whole way through the door with the real embedder, on documents of which each says one thing of its own."""
    cli = Cli(tmp_path / "data", tmp_path)
    folder = tmp_path / "files"
    folder.mkdir()
    rng = random.Random(6)
    rows = []
    for number in range(80):
        words = rng.sample(WORDS, 6)
        (folder / f"{number}.txt").write_text(f"The {words[0]} of {words[1]} is kept in the {words[2]} {words[3]}.\n")
        rows.append({"question": f"where is the {words[0]} of {words[1]}?", "document": f"{number}.txt"})
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cli("ingest", folder, "-c", "docs")
    found = cli("tune", "-c", "docs", "--questions", "q.jsonl", "--steps", "weights,adapter", "--json").json
    assert [step["name"] for step in found["steps"]] == ["weights", "adapter"]
    assert found["questions"] == {"file": 80}
    assert found["promoted"] == (found["tuning"] is not None)
    assert (
        "better; nothing was changed." in cli("tune", "-c", "docs", "--questions", "q.jsonl", "--steps", "weights").out
    )

    assert "no tunings; `citewell tune -c docs` makes one" in cli("tunings", "list", "-c", "docs").out
    assert "nothing to take back" in cli("tunings", "rollback", "-c", "docs", status=2).err
    assert "There is no tuning 'x'" in cli("tunings", "promote", "x", status=2).err
    assert (
        "--steps is 'magic'; choose of weights, adapter, projection, reranker"
        in cli("tune", "-c", "docs", "--steps", "magic", status=2).err
    )


@dataclass(slots=True)
class Asking(ScriptedGenerator):
    """A language model that writes a question about the first word of the passage it is shown, and may fall silent."""

    left: int = 1000

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        if not self.left:
            raise GeneratorFailed("The server is gone.")
        self.left -= 1
        shown = str(prompt.messages[-1]["content"]).splitlines()[1]
        yield Delta(f"Which harbour keeps the {shown.split()[0]} and the {shown.split()[1]}?\nNothing else.")


def test_questions_of_a_language_model_are_kept_when_the_run_is_stopped(tmp_path):
    """A model that goes away in the middle: what it wrote is not asked again, also after a half-written line."""
    model = Asking([], left=30)
    options = load_settings(data=tmp_path / "data", retrieval={"parts": {"lexical": False, "late": False}})
    with open_citewell(options, embedder=Turned(), generator=model) as citewell:
        rng = random.Random(3)
        for number in range(90):
            put(citewell, f"d{number}", " ".join(rng.sample(WORDS, 20)))
        collection = citewell.store.catalog.collection("docs")
        wish = Wish(steps=("adapter",), passages=80)
        with pytest.raises(GeneratorFailed):
            tune(citewell, collection, wish, promote=True, tell=lambda _: None)
        [kept] = (citewell.store.tuning_folder / collection.id).glob("*/written.jsonl")
        assert len(kept.read_text().splitlines()) == 30
        with kept.open("a") as stream:
            stream.write('["half')
        model.left = 50
        outcome = tune(citewell, collection, wish, promote=True, tell=lambda _: None)
    assert model.left == 0, "thirty were asked before, fifty now"
    assert outcome.sources["generator"] == 80
