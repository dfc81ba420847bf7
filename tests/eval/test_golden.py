"""Golden sets: read from files and from the log of answers, and checked against the documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from eval.golden import check, check_all, confirm, golden_answer, read_golden
from rag.answers import Answer, Citation, Claim
from rag.catalog import Catalog
from rag.errors import BadInput, Conflict, NotFound
from rag.golden import Content, GoldenDocument, Proposed, Standing
from rag.logged import Entry, Facts, Logged, Texts
from rag.queries import Message, Speaker
from rag.records import Collection, Plan
from tests.contracts.strategies import put

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.in_folder(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def collection(catalog: Catalog) -> Collection:
    return catalog.create_collection("harbour")


# -- files -------------------------------------------------------------------------------------------------------------


def test_json_lines_say_everything_of_a_question(tmp_path):
    """Documents by name or with words of their own; what is left out or empty is not known."""
    rows = [
        {"question": " When does the\nferry leave? ", "answer": "At noon.", "documents": ["a.txt", "b;c.txt"],
         "text": "leaves at noon", "tags": ["ferry", "times"]},
        {"question": "Who keeps the buoy?", "documents": [{"name": "a.txt", "text": "the keeper"}, {"name": "b.txt"}]},
        {"question": "Is there a casino?", "answerable": False, "answer": "", "documents": [], "tags": None},
        {"question": "One more?", "document": "a.txt"},
    ]  # fmt: skip
    file = tmp_path / "golden.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_golden(file) == [
        Proposed("When does the ferry leave?", "At noon.", True,
                 (GoldenDocument("a.txt", "leaves at noon"), GoldenDocument("b;c.txt", "leaves at noon")),
                 frozenset({"ferry", "times"})),
        Proposed("Who keeps the buoy?", None, True, (GoldenDocument("a.txt", "the keeper"), GoldenDocument("b.txt"))),
        Proposed("Is there a casino?", None, False),
        Proposed("One more?", None, True, (GoldenDocument("a.txt"),)),
    ]  # fmt: skip


def test_a_table_says_the_same(tmp_path):
    """As a spreadsheet writes it: with a byte order mark, quoted commas, and semicolons between names."""
    file = tmp_path / "golden.CSV"
    file.write_text(
        'question,answer,documents,tags,answerable\r\n"When, then?",At noon.,a.txt; b.txt,ferry;times,TRUE\r\n'
        "Is there a casino?,,,,False\r\n",
        encoding="utf-8-sig",
    )
    documents = (GoldenDocument("a.txt"), GoldenDocument("b.txt"))
    assert read_golden(file) == [
        Proposed("When, then?", "At noon.", True, documents, frozenset({"ferry", "times"})),
        Proposed("Is there a casino?", None, False),
    ]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", '{"question": "who?"}\n{"answer": "x"}\n', "line 2: A question is needed"),
        ("a.jsonl", '{"question": "?!"}\n', "line 1: The question has no words"),
        ("a.jsonl", '{"question": 5}\n', "line 1: The question is no text of 1 to 4,000 characters"),
        ("a.jsonl", '{"question": "who?", "tag": "x"}\n', "line 1: tag is not known; the columns are answer, "),
        ("a.jsonl", '{"question": "who?", "document": "a", "documents": ["b"]}\n', "leave one of them out"),
        ("a.jsonl", '{"question": "who?", "documents": [5]}\n', "line 1: The name of a document is no text"),
        ("a.jsonl", '{"question": "who?", "documents": [{"file": "a"}]}\n', "The name of a document is no text"),
        ("a.jsonl", '{"question": "who?", "documents": [{"name": "a", "text": 5}]}\n', "text of a document is no text"),
        ("a.jsonl", '{"question": "who?", "documents": {"name": "a"}}\n', "documents and tags are lists"),
        ("a.jsonl", '{"question": "who?", "answerable": "no"}\n', "answerable is neither true nor false"),
        (
            "a.jsonl",
            '{"question": "who?", "answerable": false, "answer": "x"}\n',
            "has neither an answer nor documents",
        ),
        ("a.jsonl", '{"question": "who?"}\n\n{"question": "WHO?"}\n', "line 3: It asks the same as line 1"),
        ("a.jsonl", "", "has no questions"),
        ("a.jsonl", "{", "is not readable as JSON lines"),
        ("a.csv", "question,answerable\nwho?,perhaps\n", "line 2: answerable is neither true nor false"),
        ("a.csv", "question\nwho?,surplus\n", "line 2: It has more fields than the first line"),
        ("a.csv", "frage\nwer?\n", "line 2: frage is not known"),
        ("nowhere.csv", None, "is not readable as CSV"),
    ],
)
def test_a_bad_file_is_told_in_a_sentence_with_its_line(tmp_path, name, content, sentence):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=sentence.replace("?", r"\?")):
        read_golden(tmp_path / name)


# -- drift -------------------------------------------------------------------------------------------------------------


def test_drift_is_told_for_each_document(catalog, collection):
    """Changed, reworded and gone; words are looked for in any writing of spaces, signs and capitals."""
    for name, text in {"a": "The ferry leaves at noon.", "b": "The keeper lives in the tower.", "c": "Buoys."}.items():
        put(catalog, collection.id, name, [text])
    documents = (GoldenDocument("a", "FERRY leaves, at noon"), GoldenDocument("b", "in the tower"), GoldenDocument("c"))
    [(_, found)] = catalog.add_golden(collection.id, [Proposed("What?", documents=documents)])
    [checked] = check(catalog, collection, [found])
    assert (checked.drift, checked.can_be_confirmed) == ((), True)
    put(catalog, collection.id, "a", ["Since May the ferry leaves at noon."])
    put(catalog, collection.id, "b", ["The keeper lives in the village."])
    catalog.delete_document(catalog.find_document(collection.id, "c").id)
    [checked] = check_all(catalog, "harbour")
    assert checked.standings == (Standing.CHANGED, Standing.REWORDED, Standing.GONE)
    assert checked.drift == (
        "a has another content than the one that was confirmed.",
        "b has no passage in which the words stand that were named.",
        "c is not in the collection.",
    )
    assert not checked.can_be_confirmed


def test_a_question_is_confirmed_only_while_its_words_stand(catalog, collection):
    put(catalog, collection.id, "a", ["The ferry leaves at noon."])
    wanted = Proposed("When?", documents=(GoldenDocument("a", "at noon"),))
    [(_, found)] = catalog.add_golden(collection.id, [wanted])
    put(catalog, collection.id, "a", ["The ferry leaves at noon or later."])
    assert [one.drift for one in check_all(catalog)] != [()]
    confirm(catalog, found.id)
    assert [one.drift for one in check_all(catalog)] == [()]
    put(catalog, collection.id, "a", ["The ferry leaves at nine."])
    with pytest.raises(Conflict, match="no passage in which the words stand"):
        confirm(catalog, found.id)
    assert catalog.golden(found.id).documents[0].confirmed.version == 2
    with pytest.raises(NotFound):
        confirm(catalog, "nothing")


def test_a_purge_is_told(catalog, collection):
    """Words of the question that stood in the document are gone, and the check says so until it is added anew."""
    document = put(catalog, collection.id, "a", ["The ferry leaves at noon."])
    wanted = Proposed("When?", documents=(GoldenDocument("a", "at noon"),))
    catalog.add_golden(collection.id, [wanted])
    put(catalog, collection.id, "a", ["The ferry leaves at noon or later."])
    catalog.purge(collection.id, [document])
    [checked] = check_all(catalog)
    assert checked.drift[-1] == "Words of it stood in a document that was purged."
    catalog.add_golden(collection.id, [wanted])
    assert [one.drift for one in check_all(catalog)] == [()]


# -- answers of the log ------------------------------------------------------------------------------------------------


def citation(catalog: Catalog, collection: Collection, name: str) -> Citation:
    document = catalog.find_document(collection.id, name)
    version = catalog.version(document.live_version_id)
    return Citation(
        0, 1, 1, document.id, name, version.id, version.number, "chunk", None, (), 0, 5, "storm", 0.9,
    )  # fmt: skip


def logged(catalog: Catalog, collection: Collection, *claims: Claim, redacted: bool = False, **plan: object) -> str:
    """Log an answer of some claims, an abstention if there are none; return its id."""
    answer = Answer("a" * 32, "When?", "As above.", not claims, claims, (), "scripted", NOON)
    asked = Plan("When?", (collection,), **{"filters": {}, "candidates": 9, "top_k": 3, **plan})
    texts = None if redacted else Texts(answer, asked)
    seen = frozenset((cited.document_id, cited.version) for claim in claims for cited in claim.citations)
    made = Logged(answer.id, NOON, False, None, "scripted", not claims, texts, Facts({}, {}, (), ""))
    catalog.add_answers([Entry(made, (collection.id,), seen)])
    return answer.id


def test_an_answer_becomes_a_reference_with_what_it_cites(catalog, collection):
    """Sentences without support are left out; the content is the one that the answer saw, so that drift is noticed."""
    for name in ("a", "b", "c"):
        put(catalog, collection.id, name, [f"storm {name}"])
    cited = {name: citation(catalog, collection, name) for name in ("a", "b", "c")}
    put(catalog, collection.id, "b", ["another storm"])
    answer_id = logged(
        catalog, collection, Claim("At noon.", 0, 8, (cited["a"],), supported=True),
        Claim("Or not.", 9, 16, (cited["c"],)), Claim("It is late.", 17, 28, (cited["b"],), supported=True),
    )  # fmt: skip
    proposed = golden_answer(catalog, collection, answer_id, ["log"])
    assert (proposed.question, proposed.reference) == ("When?", "At noon. It is late.")
    assert (proposed.answerable, proposed.quoting, proposed.tags) == (True, True, {"log"})
    assert [(one.name, one.confirmed.version) for one in proposed.documents] == [("a", 1), ("b", 1)]
    assert isinstance(proposed.documents[0].confirmed, Content)
    [(_, found)] = catalog.add_golden(collection.id, [proposed])
    [checked] = check(catalog, collection, [found])
    assert checked.standings == (Standing.CONFIRMED, Standing.CHANGED)


def test_an_abstention_becomes_a_question_that_nothing_answers(catalog, collection):
    proposed = golden_answer(catalog, collection, logged(catalog, collection))
    assert proposed == Proposed("When?", None, False)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"redacted": True}, "no texts of this answer"),
        ({"filters": {"year": 2026}}, "within a conversation or with filters"),
        ({"history": (Message(Speaker.USER, "And?"),)}, "within a conversation or with filters"),
    ],
)
def test_an_answer_that_can_not_be_taken_says_why(catalog, collection, how, sentence):
    with pytest.raises(BadInput, match=sentence):
        golden_answer(catalog, collection, logged(catalog, collection, **how))


def test_only_supported_answers_of_the_collection_are_taken(catalog, collection):
    other = catalog.create_collection("other")
    answer_id = logged(catalog, collection, Claim("At noon.", 0, 8, ()))
    with pytest.raises(BadInput, match="No sentence of this answer is supported"):
        golden_answer(catalog, collection, answer_id)
    with pytest.raises(BadInput, match="did not look in other alone"):
        golden_answer(catalog, other, answer_id)
    with pytest.raises(NotFound):
        golden_answer(catalog, collection, "nothing")
