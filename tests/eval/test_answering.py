"""Answers measured as users have them: the questions of a folder, ``citewell eval answers``, an interrupted run."""

from __future__ import annotations

import json
import sqlite3
import zlib

import pytest

from eval.answer_metrics import Known, metrics
from eval.answering import ask_all, check_all, choose, evaluate_answers, read_known
from eval.folders import load_corpus
from rag.assembly import open_citewell
from rag.errors import BadInput, GeneratorFailed
from rag.queries import Message, Speaker
from rag.testing import ScriptedGenerator, WordEmbedder
from tests.cli_process import Cli
from tests.eval.test_answer_metrics import MAIN

CORPUS = [
    {"_id": "tide", "title": "Harbour", "text": "The tide was high at noon. It was low at six."},
    {"_id": "storm", "title": "Weather", "text": "A storm came from the north and broke two masts."},
    {"_id": "bread", "title": "Shops", "text": "The baker sells rye bread on Fridays."},
    {"_id": "whale", "title": "Whales", "text": "A blue whale eats four tons of krill a day."},
]
QUERIES = [
    {"_id": "q1", "text": "When was the tide high?", "answers": ["at noon", "noon"]},
    {"_id": "q2", "text": "How much krill does a blue whale eat a day?", "answers": ["four tons"]},
    {"_id": "q3", "text": "Which engine drives the red locomotive?", "answers": [], "answerable": False},
]
JUDGED = {"q1": "tide", "q2": "whale"}


def written(folder, corpus=CORPUS, queries=QUERIES, judged=JUDGED):
    folder.mkdir(exist_ok=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"{query}\t{passage}\t1" for query, passage in judged.items()]
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]))
    return folder


@pytest.fixture
def folder(tmp_path):
    return written(tmp_path / "set")


# -- the command -----------------------------------------------------------------------------------------------------


def test_one_json_object_with_every_figure(folder, cache, tmp_path):
    """Two answers from the right passages, whose quotes stand; silence where nothing answers. The user's own data
    folder is not made.
    """
    cli = Cli(tmp_path / "data", tmp_path)
    ended = cli("eval", "answers", "--beir", "set", "--json", CACHE=str(cache))
    found = ended.json
    besides = {
        "f1_answerable", "exact_match_answerable", "support", "supported", "sentence_precision", "sentence_recall",
        "sentence_f1", "seconds_to_first_token", "seconds_to_last_token", "seconds_to_end", "questions", "unanswerable",
        "abstentions", "fallen_back", "withheld", "conflicting", "passages", "generator", "judge", "settings",
    }  # fmt: skip
    assert set(found) == {*MAIN, *besides}
    for name in ("answer_in_text", *MAIN[4:]):
        assert found[name] == {"value": 1.0, "low": 1.0, "high": 1.0}, name
    assert all({"value", "low", "high"} <= set(found[name]) for name in MAIN)
    assert found["sentence_f1"]["value"] is None
    assert found["sentence_f1"]["reason"] == "No question has gold sentences."
    for name in ("first_token", "last_token", "end"):
        times = found[f"seconds_to_{name}"]
        assert 0 < times["median"] <= times["p95"]
    assert found["seconds_to_first_token"]["median"] <= found["seconds_to_last_token"]["median"]
    assert [found[name] for name in ("questions", "unanswerable", "abstentions", "passages")] == [3, 1, 1, 4]
    assert (found["generator"], found["fallen_back"]) == ("reader", 0)
    assert "Asked 3 of 3 questions." in ended.err
    assert "Embedded 4 of 4 passages or reports." in ended.err
    assert not (tmp_path / "data").exists()


def test_the_table_says_what_has_no_value_and_why(tmp_path, cache):
    """A set in which every question has an answer: nothing can be said of silence."""
    written(tmp_path / "set", queries=QUERIES[:2])
    out = Cli(tmp_path / "data", tmp_path)("eval", "answers", "--beir", "set", "--limit", "1", CACHE=str(cache)).out
    lines = [line.split() for line in out.splitlines()]
    assert ["quotes_verbatim", "1.0000", "1.0000", "to", "1.0000"] in lines
    assert "abstention_recall" not in {line[0] for line in lines if line}
    said = " ".join(out.split())
    assert "No value of abstention_recall: No question is marked as one that nothing answers." in said
    assert "1 question of 2, 0 of which nothing answers; 0 abstentions; 4 passages; generator reader" in said


def test_the_command_says_what_is_wrong(folder, tmp_path, cache):
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "x", "answers": "y"}')
    ended = Cli(tmp_path / "data", tmp_path)("eval", "answers", "--beir", "set", status=2, CACHE=str(cache))
    assert ended.err == "citewell: The question 'q' has answers that are no list of texts.\n"


# -- the questions ---------------------------------------------------------------------------------------------------


def test_what_is_known_of_the_questions_of_a_folder(tmp_path):
    """Grades above 0 are relevant; a report is a filter; of what nothing answers no answer counts; of one question
    nothing at all is known, and it is left out.
    """
    queries = [
        {
            "_id": "1", "text": "Sales?", "answers": ["1; 2"], "answer_parts": ["1", "2"], "context_id": "r",
            "history": [{"role": "user", "content": "Of which year?"}],
        },
        {"_id": "2", "text": "Storms?", "answers": ["long"], "gold_sentences": ["One.", "Two."], "answerable": True},
        {"_id": "3", "text": "Nobody?", "answers": ["no"], "gold_sentences": ["None."], "answerable": False},
        {"_id": "4", "text": "Passage alone?"},
        {"_id": "5", "text": "What of this?", "answers": []},
    ]  # fmt: skip
    written(tmp_path, queries=queries, judged={"1": "a", "4": "b"})
    judged = (tmp_path / "qrels.tsv").read_text()
    (tmp_path / "qrels.tsv").write_text(f"{judged}\n4\tc\t2\n4\td\t0\n")
    assert read_known(tmp_path) == [
        Known(
            "1", "Sales?", True, ("1; 2",), ("1", "2"), (), frozenset("a"), {"context_id": "r"},
            (Message(Speaker.USER, "Of which year?"),),
        ),
        Known("2", "Storms?", True, ("long",), (), ("One.", "Two.")),
        Known("3", "Nobody?", False),
        Known("4", "Passage alone?", True, relevant=frozenset("bc")),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("qrels.tsv", None, "has no qrels.tsv"),
        ("queries.jsonl", '{"text": "x"}', "has no _id"),
        ("queries.jsonl", '{"_id": "q"}', "The question 'q' has no text."),
        ("queries.jsonl", '{"_id": "q", "text": "x", "answers": "y"}', "answers that are no list of texts"),
        ("queries.jsonl", '{"_id": "q", "text": "x", "answerable": "no"}', "neither true nor false"),
        ("queries.jsonl", '{"_id": "q", "text": "x"}', "has no question that anything is known of"),
        ("corpus.jsonl", "[]", "is no JSON object"),
    ],
)
def test_a_folder_that_is_none_is_refused_with_a_sentence(folder, settings, cache, file, content, sentence):
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(BadInput, match=sentence):
        evaluate_answers(settings.model_copy(update={"cache": cache}), folder)


def test_some_questions_are_always_the_same_ones():
    """By chance, in their order, each once; all of them where there are no more."""
    every = [Known(str(number), "?", True) for number in range(100)]
    chosen = [int(known.id) for known in choose(every, 10)]
    assert chosen == sorted({*chosen})
    assert len(chosen) == 10
    assert chosen != list(range(10))
    assert [int(known.id) for known in choose(every, 10)] == chosen
    assert choose(every, 100) == choose(every, None) == every


# -- asking ----------------------------------------------------------------------------------------------------------


def test_a_quote_whose_text_was_altered_afterwards_is_found_out(folder, settings, embedder):
    """What checks the quotes is not what wrote them: it reads the stored text again."""
    questions = read_known(folder)[:2]
    with open_citewell(settings, embedder=embedder) as citewell:
        said = ask_all(citewell, load_corpus(citewell, folder), questions)
        assert metrics(check_all(citewell, questions, said))["quotes_verbatim"].value == 1
        with sqlite3.connect(settings.data / "catalog.sqlite3") as database:
            [(packed,)] = database.execute("SELECT text FROM parses").fetchall()
            text = zlib.decompress(packed).decode().replace("high at noon", "high at nine")
            database.execute("UPDATE parses SET text = ?", (zlib.compress(text.encode()),))
        database.close()
        found = metrics(check_all(citewell, questions, said))["quotes_verbatim"]
    cited = sum(len(one.citations) for one in said)
    assert found.value == pytest.approx(1 - 1 / cited)


def test_what_a_language_model_writes_is_compared_without_its_markers(folder, settings):
    """Its words count without the brackets; the passage that a bracket names is cited; times are in their order."""
    model = ScriptedGenerator(["The tide was ", "high at noon", " [1]."])
    questions = read_known(folder)[:1]
    with open_citewell(settings, embedder=WordEmbedder(), generator=model) as citewell:
        [said] = ask_all(citewell, load_corpus(citewell, folder), questions)
    assert (said.text, said.short, said.abstained) == ("The tide was high at noon.", None, False)
    assert [cited.passages for cited in said.citations] == [("tide",)]
    assert (said.question, said.generator) == ("q1", "scripted")
    assert 0 < said.first <= said.last <= said.whole


def test_what_a_model_said_before_it_failed_does_not_count(folder, settings):
    """The built-in reader answers in its place, which is counted; without it the run ends with the model's error."""
    model = ScriptedGenerator(["Something "], failure="The server fell silent.")
    with open_citewell(settings, embedder=WordEmbedder(), generator=model) as citewell:
        [said] = ask_all(citewell, load_corpus(citewell, folder), read_known(folder)[:1])
        assert "Something" not in said.text
        assert said.generator == "reader"
    alone = settings.model_copy(update={"generator": settings.generator.model_copy(update={"fall_back": False})})
    with (
        open_citewell(alone, embedder=WordEmbedder(), generator=model) as citewell,
        pytest.raises(GeneratorFailed, match="fell silent"),
    ):
        ask_all(citewell, load_corpus(citewell, folder), read_known(folder)[:1])


def test_a_run_that_was_interrupted_goes_on_where_it_was(folder, settings, cache):
    """What was said stays in a file, also if a line of it was cut off; the rest is asked, and nothing is left behind.
    A run of other settings begins anew.
    """
    settings = settings.model_copy(update={"cache": cache})

    def broken_off(done, of):
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        evaluate_answers(settings, folder, asked=broken_off)
    [file] = (cache / "eval" / "answers").iterdir()
    lines = file.read_text().splitlines()
    assert [json.loads(line)["said"]["question"] for line in lines] == ["q1", "q2"]
    altered = json.loads(lines[0])
    altered["said"]["short"] = "from the file"
    file.write_text(json.dumps(altered) + "\n" + lines[1][:50])

    other = settings.model_copy(update={"retrieval": settings.retrieval.model_copy(update={"top_k": 3})})
    anew = evaluate_answers(other, folder)
    assert "from the file" not in [one.said.short for one in anew.answered]
    found = evaluate_answers(settings, folder)
    assert [one.said.question for one in found.answered] == ["q1", "q2", "q3"]
    assert found.answered[0].said.short == "from the file"
    assert found.answered[0].said.citations == anew.answered[0].said.citations
    assert found.answered[1].said.text == "A blue whale eats four tons of krill a day."
    assert not list((cache / "eval" / "answers").iterdir())


def test_questions_of_a_report_are_asked_about_it_alone(tmp_path, settings, cache):
    """Two reports say when the tide was high; each question is about one of them, and cites that."""
    corpus = [
        {"_id": "x1", "text": "The tide was high at noon.", "context_id": "x"},
        {"_id": "y1", "text": "The tide was high at seven.", "context_id": "y"},
    ]
    queries = [
        {"_id": key, "text": "When was the tide high?", "answers": [said], "context_id": key}
        for key, said in (("x", "noon"), ("y", "seven"))
    ]
    written(tmp_path / "set", corpus, queries, {"x": "x1", "y": "y1"})
    found = evaluate_answers(settings.model_copy(update={"cache": cache}), tmp_path / "set")
    figures = found.metrics()
    assert [figures[name].value for name in ("answer_in_text", "gold_cited_precision", "gold_cited_recall")] == [1] * 3
