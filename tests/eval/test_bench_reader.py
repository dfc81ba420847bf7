"""The benchmark of the readers: which passages they get, what counts as shown, and the table side by side."""

from __future__ import annotations

import gzip
import json

import pytest

from eval.bench_reader import Asked, asked_of, is_shown, side_by_side
from eval.reading import is_said
from rag.reader import Candidate
from rag.records import Kind
from tests.rag.passages import passage


def written(folder, corpus, queries):
    folder.mkdir()
    for name, rows in (("corpus", corpus), ("queries", queries)):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)
    return folder


def test_questions_get_the_passages_that_the_product_finds(citewell, tmp_path):
    """The best first; a question that nothing answers has no answers, and of long answers the sentences count."""
    corpus = [
        {"_id": "a", "title": "Ships", "text": "The Aurora was built in 1901. It carried guns."},
        {"_id": "b", "title": "Bridges", "text": "The bridge was opened by the mayor."},
    ]
    queries = [
        {"_id": "1", "text": "When was the Aurora built?", "answers": ["1901"]},
        {"_id": "2", "text": "Who sank the Aurora?", "answers": [], "answerable": False},
        {"_id": "3", "text": "Who opened the bridge?", "answers": ["long"], "gold_sentences": ["by the mayor"]},
        {"_id": "4", "text": "Nobody knows what counts here", "answers": []},
    ]
    folder = written(tmp_path / "set", corpus, queries)
    asked = asked_of(citewell, folder, folder, 9)
    assert [one.answers for one in asked] == [("1901",), (), ("by the mayor",)]
    assert [one.passages[0].context for one in asked] == ["Ships", "Ships", "Bridges"]
    assert [one.question for one in asked_of(citewell, folder, folder, 1)] == ["When was the Aurora built?"]


def test_questions_about_a_report_get_all_of_it_in_its_order(citewell, tmp_path):
    corpus = [
        {"_id": "a", "text": "Sales | 12", "kind": "table", "context_id": "r"},
        {"_id": "b", "text": "Other", "kind": "paragraph", "context_id": "s"},
        {"_id": "c", "text": "In millions.", "kind": "paragraph", "context_id": "r"},
    ]
    queries = [{"_id": "1", "text": "Sales?", "answers": ["12", "in millions"], "context_id": "r"}]
    [asked] = asked_of(citewell, written(tmp_path / "set", corpus, queries), tmp_path, 9)
    assert [(p.text, p.kind) for p in asked.passages] == [("Sales | 12", Kind.TABLE), ("In millions.", Kind.TEXT)]
    assert asked.answers == ("12", "in millions")


@pytest.mark.parametrize(
    ("text", "answer", "said"),
    [
        ("It was built in 1901.", "1901", True),
        ("It was built in 19011.", "1901", False),
        ("The  so-called “Old Bridge”, open", "old bridge", True),
        ("The bridge", "The bridges", False),
    ],
)
def test_an_answer_is_said_in_whole_words(text, answer, said):
    assert is_said(text, ["never", answer]) == said
    assert is_shown([Candidate(1, 0, 1, part, 0.0) for part in text.split(" ", 1)], [answer]) == said


def test_readers_side_by_side():
    """Shown, silent where there is an answer and where there is none; and how far the second is from the first."""
    asked = [Asked("a", (passage("Ann"),), ("ann",)), Asked("b", (passage("Bob"),), ("bob",)), Asked("c", (), ())]

    def all_of_it(question, passages):
        return [Candidate(1, 0, 3, p.text, 1.0) for p in passages]

    def first_alone(question, passages):
        return all_of_it(question, passages) if question == "a" else []

    header, first, second = side_by_side({"one": first_alone, "all": all_of_it}, asked)
    told = [dict(zip(header, row, strict=True)) for row in (first, second)]
    assert [row["a gold answer is shown"][:5] for row in told] == ["0.500", "1.000"]
    assert [row["sentences"] for row in told] == ["0.50", "1.00"]
    assert [row["silent"] for row in told] == ["0.500", "0.000"]
    assert [row["silent, unanswerable"] for row in told] == ["1.000", "1.000"]
    assert told[0]["to the first"] == ""
    assert told[1]["to the first"].startswith("+0.500")
