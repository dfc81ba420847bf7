"""Retrieval metrics by hand-computed numbers, on a small folder in BEIR layout, through the product's own retrieval."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest

from eval.ablation import configurations
from eval.folders import Question, load_corpus, read_questions
from eval.ranking import evaluate_folder, rank, score, score_each, write_run
from rag.assembly import open_citewell
from rag.errors import BadInput
from rag.queries import Message, Speaker
from rag.settings import load_settings
from rag.testing import WordEmbedder
from rag.understanding import MADE_BY_MODEL

CORPUS = [
    {"_id": "d1", "title": "Storm", "text": "A storm came from the north."},
    {"_id": "d2", "title": "", "text": "The tide was high at noon."},
    {"_id": "d3", "title": "Only a title", "text": ""},
]
QUERIES = [
    {"_id": "q1", "text": "storm from the north"},
    {"_id": "q2", "text": "high tide"},
    {"_id": "q3", "text": "unanswerable"},
]


@pytest.fixture(params=[".jsonl", ".jsonl.gz"])
def folder(tmp_path, request):
    for name, rows in (("corpus", CORPUS), ("queries", QUERIES)):
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        file = tmp_path / f"{name}{request.param}"
        file.write_bytes(gzip.compress(text) if request.param.endswith("gz") else text)
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\nq2\td3\t0\n")
    return tmp_path


def test_metrics_by_hand():
    """One question right at once, one at rank 3, one missed: the numbers of trec_eval."""
    questions = [Question("a", "", {"1": 1}), Question("b", "", {"3": 1}), Question("c", "", {"9": 1, "8": 1})]
    run = {"a": [("1", 0.9), ("2", 0.8)], "b": [("1", 0.9), ("2", 0.9), ("3", 0.9)], "c": [("8", 0.1)]}
    values = score(run, questions)
    third = 1 / math.log2(4)
    both = 1 / (1 + 1 / math.log2(3))
    assert values["ndcg@10"] == pytest.approx((1 + third + both) / 3)
    assert values["mrr@10"] == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert values["recall@5"] == values["recall@20"] == pytest.approx((1 + 1 + 0.5) / 3)


def test_a_question_that_found_nothing_counts_as_a_miss():
    questions = [Question("a", "", {"1": 1}), Question("b", "", {"2": 1})]
    assert score({"a": [("1", 1.0)], "b": []}, questions)["mrr@10"] == 0.5


def test_each_question_has_a_number_of_its_own():
    """In the order of the questions, whatever order the run has; nothing found is 0."""
    questions = [Question("b", "", {"2": 1}), Question("a", "", {"1": 1}), Question("c", "", {"3": 1})]
    values = score_each({"a": [("9", 2.0), ("1", 1.0)], "b": [("2", 1.0)]}, questions)
    assert values["mrr@10"].tolist() == [1.0, 0.5, 0.0]
    assert values["ndcg@10"].tolist() == pytest.approx([1.0, 1 / math.log2(3), 0.0])


def test_recall_is_cut_where_its_name_says():
    """The right passage at rank 6, 21, 100 and 101 of a ranking."""
    questions = [Question(str(rank), "", {f"p{rank}": 1}) for rank in (6, 21, 100, 101)]
    run = {question.id: [(f"p{rank}", 200.0 - rank) for rank in range(1, 102)] for question in questions}
    values = score_each(run, questions)
    assert values["recall@5"].tolist() == [0, 0, 0, 0]
    assert values["recall@20"].tolist() == [1, 0, 0, 0]
    assert values["recall@100"].tolist() == [1, 1, 1, 0]


def test_a_folder_is_evaluated_through_the_products_own_retrieval(folder, settings, cache, tmp_path):
    settings = settings.model_copy(update={"cache": cache})
    run = tmp_path / "run.txt"
    found = evaluate_folder(settings, folder, run=run).as_json()
    every = {"ndcg@10": 1.0, "recall@5": 1.0, "recall@20": 1.0, "recall@100": 1.0, "mrr@10": 1.0}
    assert {name: found[name] for name in every} == every
    assert found["intervals"] == {name: [1.0, 1.0] for name in every}
    assert found["queries"] == 2
    assert found["queries_per_second"] > 0
    assert found["latency_ms"]["p50"] <= found["latency_ms"]["p95"] <= found["latency_ms"]["p99"]
    assert sum(stage["share"] for stage in found["stages"].values()) == pytest.approx(1, abs=0.001)
    assert {"embed", "dense", "lexical", "other"} <= set(found["stages"])
    assert "configurations" not in found
    lines = [line.split() for line in run.read_text().splitlines()]
    assert [line[:4] for line in lines if line[3] == "1"] == [["q1", "Q0", "d1", "1"], ["q2", "Q0", "d2", "1"]]
    assert len(evaluate_folder(settings, folder, limit=1).default.run) == 1


def test_an_ablation_compares_with_the_product_as_it_is(folder, settings, cache, tmp_path):
    """BM25 alone knows no passage without a word of the question; the product finds it by its vector."""
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\nq3\td3\t1\n")
    settings = settings.model_copy(update={"cache": cache})
    told: list[str] = []
    found = evaluate_folder(settings, folder, ablate=True, run=tmp_path / "runs", tell=told.append)
    rows = {row["name"]: row for row in found.as_json()["configurations"]}
    compared = configurations(found.default.configuration.parts, MADE_BY_MODEL)
    assert set(rows) == {row.name for row in compared} - {*found.left_out}
    assert rows["lexical"]["parts"]["dense"] is False
    assert [rows[name]["recall@5"] for name in ("lexical", "dense", "default")] == [0.6667, 1.0, 1.0]
    assert rows["lexical"]["against_default"]["recall@5"] == {
        "difference": -0.3333, "interval": [-1.0, 0.0], "p_value": 1.0,
    }  # fmt: skip
    assert "against_default" not in rows["default"]
    files = {file.stem: file.read_text() for file in (tmp_path / "runs").glob("*.trec")}
    assert set(files) == set(rows)
    assert files["lexical"].splitlines()[0].split()[:4] == ["q1", "Q0", "d1", "1"]
    assert files["lexical"].splitlines()[0].endswith(" citewell-lexical")
    assert len(told) == len(rows) + len(found.left_out) - 1


@pytest.mark.parametrize(("ablate", "made"), [(False, Path.mkdir), (True, Path.touch)], ids=["folder", "file"])
def test_a_run_that_can_not_be_written_is_refused_before_the_work(folder, settings, cache, tmp_path, ablate, made):
    settings = settings.model_copy(update={"cache": cache})
    made(tmp_path / "runs")
    with pytest.raises(BadInput, match="can not be written as a"):
        evaluate_folder(settings, folder, ablate=ablate, run=tmp_path / "runs")
    assert not (cache / "eval").exists()


def test_a_corpus_is_loaded_once(folder, settings):
    with open_citewell(settings, embedder=WordEmbedder()) as citewell:
        told: list[tuple[int, int]] = []
        collection = load_corpus(citewell, folder, lambda done, of: told.append((done, of)))
        assert (collection.passages, told) == (3, [(3, 3)])
        assert load_corpus(citewell, folder, lambda done, of: told.append((done, of))).id == collection.id
        assert told == [(3, 3)]
        first = citewell.search(citewell.plan("storm from the north", [collection.name])).passages[0]
        assert (first.section, first.context, first.text) == (("d1",), "Storm", CORPUS[0]["text"])


def test_a_passage_that_was_folded_stands_behind_its_copy(tmp_path, settings):
    """A judgement may be of either; both are in the ranking, and what is no copy comes after them."""
    text = "The harbour master counts the boats each morning and writes their number on the slate by the door."
    rows = [{"_id": "a", "text": text}, {"_id": "b", "text": text + " "}, {"_id": "c", "text": "Boats are counted."}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open_citewell(settings, embedder=WordEmbedder()) as citewell:
        collection = load_corpus(citewell, tmp_path).name
        run = rank(citewell, collection, [Question("q", "who counts the boats each morning", {"b": 1})])
    assert [passage for passage, _ in run["q"]] == ["a", "b", "c"]


def test_only_judged_questions_are_asked(folder):
    assert [(q.id, q.relevant) for q in read_questions(folder)] == [("q1", {"d1": 1}), ("q2", {"d2": 1, "d3": 0})]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq1 d1 1\n", "is not query-id"),
        ("queries.jsonl", "{not json\n", "not readable as JSON lines"),
    ],
)
def test_a_folder_that_is_none_is_refused_with_a_sentence(tmp_path, name, content, sentence):
    with pytest.raises(BadInput, match="give a folder in BEIR layout"):
        read_questions(tmp_path)
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "x"}\n')
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=sentence):
        read_questions(tmp_path)


def test_a_run_file_keeps_the_order_for_those_who_sort_it(tmp_path):
    """Equal and rising scores are written falling; trec_eval would else break ties by id."""
    write_run(tmp_path / "run", {"q": [("a", 0.5), ("b", 0.5), ("c", 0.7)]})
    scores = [float(line.split()[4]) for line in (tmp_path / "run").read_text().splitlines()]
    assert scores == [0.5, 0.499999, 0.499998]


def test_a_run_file_is_in_trec_format(tmp_path):
    write_run(tmp_path / "run", {"q": [("a", 0.5), ("b", 0.25)]})
    assert (tmp_path / "run").read_text() == "q Q0 a 1 0.500000 citewell\nq Q0 b 2 0.250000 citewell\n"


def test_a_question_may_come_with_the_conversation_before_it(tmp_path):
    """It is asked with it: without a model by the rule, which looks for the question before it, too."""
    rows = [{"_id": "a", "text": "the grey lighthouse at Skagen"}, {"_id": "b", "text": "herring at noon"}]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    said = [{"role": "user", "content": "Is there a lighthouse at Skagen?"}]
    asked = {"_id": "q", "text": "Who keeps it?", "history": said}
    (tmp_path / "queries.jsonl").write_text(json.dumps(asked))
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t1\n")
    [question] = read_questions(tmp_path)
    assert question.history == (Message(Speaker.USER, "Is there a lighthouse at Skagen?"),)
    settings = load_settings(data=tmp_path / "data")
    with open_citewell(settings, embedder=WordEmbedder()) as citewell:
        collection = load_corpus(citewell, tmp_path).name
        plan = citewell.plan(question.text, [collection], history=question.history)
        assert [query.role for query in citewell.search(plan).queries] == ["question", "conversation"]
        assert rank(citewell, collection, [question])["q"][0][0] == "a"
    (tmp_path / "queries.jsonl").write_text(json.dumps({**asked, "history": ["x"]}))
    with pytest.raises(BadInput, match="a history that is no list of role and content"):
        read_questions(tmp_path)
