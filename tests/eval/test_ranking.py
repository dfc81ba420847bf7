"""Retrieval metrics by hand-computed numbers, on a small folder in BEIR layout, through the product's own retrieval."""

from __future__ import annotations

import gzip
import json
import math

import pytest

from eval.folders import Question, load_corpus, read_questions
from eval.ranking import evaluate_folder, score, write_run
from rag.assembly import open_citewell
from rag.errors import BadInput
from rag.testing import WordEmbedder

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


def test_a_folder_is_evaluated_through_the_products_own_retrieval(folder, settings, tmp_path):
    settings = settings.model_copy(update={"cache": tmp_path / "cache"})
    run_file = tmp_path / "run.txt"
    scores = evaluate_folder(settings, folder, run_file=run_file)
    assert scores.as_json() == {
        "ndcg@10": 1.0, "recall@5": 1.0, "recall@20": 1.0, "mrr@10": 1.0, "queries": 2,
        "queries_per_second": pytest.approx(scores.queries_per_second, abs=0.06),
    }  # fmt: skip
    lines = [line.split() for line in run_file.read_text().splitlines()]
    assert [line[:4] for line in lines if line[3] == "1"] == [["q1", "Q0", "d1", "1"], ["q2", "Q0", "d2", "1"]]
    assert evaluate_folder(settings, folder, limit=1).queries == 1


def test_a_corpus_is_loaded_once(folder, settings):
    with open_citewell(settings, embedder=WordEmbedder()) as citewell:
        told: list[tuple[int, int]] = []
        collection = load_corpus(citewell, folder, lambda done, of: told.append((done, of)))
        assert (collection.passages, told) == (3, [(3, 3)])
        assert load_corpus(citewell, folder, lambda done, of: told.append((done, of))).id == collection.id
        assert told == [(3, 3)]
        first = citewell.search(citewell.plan("storm from the north", [collection.name])).passages[0]
        assert (first.section, first.context, first.text) == (("d1",), "Storm", CORPUS[0]["text"])


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


def test_a_run_file_is_in_trec_format(tmp_path):
    write_run(tmp_path / "run", {"q": [("a", 0.5), ("b", 0.25)]})
    assert (tmp_path / "run").read_text() == "q Q0 a 1 0.500000 citewell\nq Q0 b 2 0.250000 citewell\n"
