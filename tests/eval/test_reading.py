"""How well a reader answers: the metrics of SQuAD 2.0 by hand, the questions of a folder, ``citewell eval reader``."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from eval.reading import Answered, Comprehension, Given, exact_match, read_all, read_given, refused, word_f1
from eval.statistics import interval_of
from rag.errors import BadInput
from rag.span_reader import Reading
from tests.cli_process import Cli


def test_words_of_an_answer():
    """Articles, punctuation and case do not count; of several gold answers the best fitting one does."""
    assert word_f1("The North Sea.", ["a north sea"]) == 1
    assert exact_match("The North Sea.", ["a north sea"]) == 1
    assert word_f1("north sea coast", ["baltic", "the north sea"]) == pytest.approx(2 * 2 / 5)
    assert exact_match("north sea coast", ["the north sea"]) == 0
    assert word_f1("", ["sea"]) == 0
    assert (word_f1("", []), word_f1("sea", []), exact_match("", [])) == (1, 0, 1)


def test_refusals_where_nine_of_ten_answerable_questions_are_answered():
    """Ten answerable from .05 to .95: at .15 nine are answered, and two of four unanswerable ones lie below."""
    sure = np.array([0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95, 0.1, 0.14, 0.15, 0.5])
    answerable = np.array([True] * 10 + [False] * 4)
    assert refused(sure, answerable) == 0.5
    assert math.isnan(refused(sure, answerable | True))


@pytest.fixture
def folder(tmp_path):
    """Two sets in one: questions with a judged passage, one without an answer, one of a report."""
    corpus = [
        {"_id": "p1", "title": "Sea", "text": "The tide was high at noon."},
        {"_id": "p2", "text": "The baker sells bread."},
        {"_id": "r1", "text": "Sales | 12", "context_id": "r"},
        {"_id": "r2", "text": "Sales are in millions.", "context_id": "r"},
    ]
    queries = [
        {"_id": "q1", "text": "When was the tide high?", "answers": ["noon", "at noon"]},
        {"_id": "q2", "text": "Who sells rye?", "answers": [], "answerable": False, "source_paragraph": "p2"},
        {"_id": "q3", "text": "What were the sales?", "answers": ["12"], "context_id": "r"},
        {"_id": "q4", "text": "No passage?", "answers": ["12"]},
        {"_id": "q5", "text": "No answer known", "answers": []},
    ]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tp1\t1\nq3\tr1\t1\n")
    return tmp_path


def test_questions_of_a_folder_with_their_passages(folder):
    assert read_given(folder) == [
        Given("When was the tide high?", (("Sea", "The tide was high at noon."),), ("noon", "at noon")),
        Given("Who sells rye?", (("", "The baker sells bread."),), ()),
        Given("What were the sales?", (("", "Sales | 12"), ("", "Sales are in millions.")), ("12",)),
    ]


def test_what_a_reader_says_of_several_passages_is_what_the_best_one_says(folder):
    """The reader here marks the last word, and is surest of the longest text."""

    def read(asked):
        spans = [(len(text.rstrip(".").rpartition(" ")[0]) + 1, len(text.rstrip("."))) for _, _, text in asked]
        return [Reading(span, len(one.text) - 21.0, 0.0, 0.0, ()) for one, span in zip(asked, spans, strict=True)]

    questions = read_given(folder)
    answered, _ = read_all(read, questions)
    assert [a.text for a in answered] == ["noon", "bread", "millions"]
    found = Comprehension(questions, answered, 2.0).as_json()
    assert found["f1"]["value"] == found["exact_match"]["value"] == round(1 / 3, 4)
    assert found["refused_unanswerable_at_90_coverage"]["value"] == 0
    assert (found["rows"], found["rows_per_second"]) == (3, 1.5)
    assert set(found) == {"f1", "exact_match", "refused_unanswerable_at_90_coverage", "rows", "rows_per_second"}


def test_a_reader_that_is_not_sure_gives_no_answer_and_the_curve_counts_the_surest_first():
    """An answer below .5 is none: right where there is none to give."""
    questions = [Given("a", (), ("x",)), Given("b", (), ()), Given("c", (), ("z",)), Given("d", (), ("w",))]
    answered = [Answered("x", 0.9), Answered("y", 0.2), Answered("z", 0.4), Answered("v", 0.8)]
    found = Comprehension(questions, answered, 1.0)
    assert found.metrics()["f1"].value == 0.5
    assert found.risk([0.25, 0.5, 1.0]) == {0.25: 0.0, 0.5: 0.5, 1.0: 0.5}


def test_a_folder_without_answers_is_refused(tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"_id": "p", "text": "t"}')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "t"}')
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n")
    with pytest.raises(BadInput, match="has no question with answers and passages"):
        read_given(tmp_path)


def test_the_command_says_what_is_wrong(tmp_path):
    (tmp_path / "set").mkdir()
    ended = Cli(tmp_path / "data", tmp_path)("eval", "reader", "set", "--json", status=2)
    assert ended.err.startswith("citewell: set has no corpus.jsonl")
    assert len(ended.err.strip().splitlines()) == 1


def test_an_interval_of_any_statistic():
    """The mean of half zeros and half ones; draws without a number are left out; no rows, no interval."""
    values = np.array([0.0, 1.0] * 50)
    low, high = interval_of(lambda rows: float(values[rows].mean()), 100)
    assert (low, high) == (pytest.approx(0.4, abs=0.03), pytest.approx(0.6, abs=0.03))
    assert interval_of(lambda rows: math.nan if rows.min() else 1.0, 2) == (1.0, 1.0)
    assert math.isnan(interval_of(lambda _: math.nan, 3)[0])
    with pytest.raises(ValueError, match="at least one row"):
        interval_of(lambda _: 1.0, 0)
