"""The benchmark of the report: its table, and what it is told where there is nothing to measure."""

from __future__ import annotations

import pytest

from eval.answer_metrics import Known
from eval.bench_report import Night, _golden, main, table_of


def test_a_row_for_each_night():
    told = {
        "headlines": {"correctness": {"value": 0.91234}, "recall@5": {"value": 1.0}},
        "cost": {"seconds_answering": 12.34}, "verdict": {"passed": False}, "unscored": {"no answer: Down.": 2, "x": 1},
    }  # fmt: skip
    passed = told | {"verdict": {"passed": True}, "unscored": {}}
    assert table_of([Night(61.26, 99.94, told), Night(20.0, 30.0, passed)]) == [
        ["night", "seconds", "of processors", "answering", "verdict", "not scored", "correctness", "recall@5"],
        ["1", "61.3", "99.9", "12.3", "failed", "3", "0.912", "1.000"],
        ["2", "20.0", "30.0", "12.3", "passed", "0", "0.912", "1.000"],
    ]


def test_questions_become_golden_ones():
    """With their first accepted answer and the articles that they are from; those that nothing answers say so."""
    known = Known("1", "When?", True, ("at noon", "noon"))
    assert _golden(known, ["b.md", "a.md", "b.md"]) == {
        "question": "When?", "answer": "at noon", "documents": ["a.md", "b.md"]
    }  # fmt: skip
    assert _golden(Known("2", "Why?", False), []) == {
        "question": "Why?", "answerable": False, "tags": ["unanswerable"]
    }  # fmt: skip


def test_a_folder_without_the_set_is_said_to_be_one(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path)])
    assert f"{tmp_path} has no squad." in capsys.readouterr().err
