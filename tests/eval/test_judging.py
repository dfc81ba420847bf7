"""How well a judge agrees with people: the metrics by hand, the rows of a file, and ``citewell eval judge``."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.judging import Agreement, Labelled, auroc, balanced_accuracy, f1, judge_rows, read_labelled
from rag.errors import BadInput
from rag.grounding import LexicalJudge
from tests.cli_process import Cli

ROWS = [
    {"context": "The limit is 145 euros.", "response": "The limit is 145 euros.", "label": True, "split": "dev"},
    {"context": "The limit is 145 euros.", "response": "Dogs are welcome here.", "label": False, "split": "dev"},
    {"context": "It is late.", "response": "It is early.", "label": False, "split": "train"},
]


def write(file, rows):
    with gzip.open(file, "wt") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    return file


def test_metrics_by_hand():
    """Two supported rows, one found; four that are not, one taken for supported."""
    labels = np.array([True, True, False, False, False, False])
    judged = np.array([True, False, True, False, False, False])
    assert balanced_accuracy(judged, labels) == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert f1(judged, labels) == pytest.approx(2 * (1 / 2 * 1 / 2) / (1 / 2 + 1 / 2))
    assert auroc(np.array([0.9, 0.4, 0.6, 0.4, 0.1, 0.2]), labels) == pytest.approx((4 + 2.5) / 8)
    assert f1(judged & False, labels) == 0
    assert math.isnan(balanced_accuracy(judged, labels | True))
    assert math.isnan(auroc(judged.astype(float), labels & False))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_the_area_is_the_share_of_pairs_in_the_right_order(rows):
    """Against every pair counted one by one."""
    scores, labels = np.array([s for s, _ in rows], dtype=float), np.array([label for _, label in rows])
    pairs = [(a > b) + (a == b) / 2 for a in scores[labels] for b in scores[~labels]]
    area = auroc(scores, labels)
    assert math.isnan(area) if not pairs else area == pytest.approx(sum(pairs) / len(pairs))


def test_rows_of_a_file(tmp_path):
    """Rows for training are left out unless their split is asked for; plain files are read too."""
    file = write(tmp_path / "rows.jsonl.gz", ROWS)
    assert [row.supported for row in read_labelled(file)] == [True, False]
    assert read_labelled(file, "train") == [Labelled("It is early.", "It is late.", supported=False)]
    plain = tmp_path / "rows.jsonl"
    plain.write_text(json.dumps({**ROWS[0], "split": None}))
    assert read_labelled(plain)[0].claim == "The limit is 145 euros."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"context": "a", "response": "b"}', "line 1, has no text context, text response and label"),
        (b'{"context": "a", "response": "b", "label": 1}', "line 1, has no text context, text response and label"),
        (b"\n[1]", "line 2, is no JSON object"),
        (b'{"context": ', "is not readable as JSON lines"),
        (b"\xff\xfe", "is not readable as JSON lines"),
        (b"", "has no row to judge by"),
    ],
)
def test_a_bad_file_is_one_sentence(content, said, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(content)
    with pytest.raises(BadInput, match=said):
        read_labelled(file)


def test_a_judge_of_words_on_rows():
    """Both rows are judged right; every draw that has both classes says so too."""
    rows = [Labelled(str(row["response"]), str(row["context"]), bool(row["label"])) for row in ROWS[:2]]
    found = judge_rows(LexicalJudge(), rows)
    assert found.as_json()["balanced_accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found.as_json()["rows"] == 2
    one = Agreement(found.scores[:1], found.labels[:1], 1.0)
    assert one.as_json()["auroc"] == {"value": None, "low": None, "high": None}


def test_the_command_says_what_is_wrong(tmp_path):
    ended = Cli(tmp_path / "data", tmp_path)("eval", "judge", "nowhere.jsonl.gz", "--json", status=2)
    assert ended.err.startswith("citewell: nowhere.jsonl.gz is not there; ")
    assert len(ended.err.strip().splitlines()) == 1
