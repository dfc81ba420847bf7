"""How well a judge agrees with people: the metrics by hand, the rows of a file, and ``citewell eval judge``."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.agreement import score_rows
from eval.judges import built_in_fingerprint, open_model_judge
from eval.judging import (
    Agreement,
    Confusion,
    Labelled,
    auroc,
    balanced_accuracy,
    f1,
    judge_rows,
    keep_agreement,
    last_agreement,
    read_labelled,
    sample_rows,
)
from rag.errors import BadInput, Unavailable
from rag.grounding import LexicalJudge
from rag.settings import ScoringSettings
from tests.cli_process import Cli
from tests.scripted_llm import CHAT, MODEL, ScriptedLLM, json_reply, stream

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


def test_a_confusion_table_by_hand():
    """Two supported rows, one found; four that are not, one taken for supported; at the judge's own threshold."""
    labels = np.array([True, True, False, False, False, False])
    found = Agreement(np.array([0.9, 0.6, 0.8, 0.5, 0.1, 0.69]), labels, 1.0, threshold=0.7).confusion()
    assert found == Confusion(found=1, missed=1, passed=1, refused=3)
    assert (found.supported, found.unsupported, found.sensitivity, found.specificity) == (2, 4, 0.5, 0.75)
    assert math.isnan(Confusion(0, 0, 1, 1).sensitivity)
    assert math.isnan(Confusion(1, 1, 0, 0).specificity)


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


# -- what was measured last ------------------------------------------------------------------------------------------


def test_what_was_measured_last_of_a_judge_is_kept(tmp_path):
    """By the judge's fingerprint; a later measurement takes the place of the first."""
    agreement = Agreement(np.array([0.9, 0.2, 0.8]), np.array([True, False, False]), 1.0, failed=1)
    assert last_agreement(tmp_path, "judge-1") is None
    keep_agreement(tmp_path, "judge", "judge-1", "old.jsonl", Agreement(np.array([0.9]), np.array([True]), 1.0))
    kept = keep_agreement(tmp_path, "judge", "judge-1", "rows.jsonl.gz", agreement)
    found = last_agreement(tmp_path, "judge-1")
    assert found == kept
    assert (found.file, found.rows, found.failed) == ("rows.jsonl.gz", 3, 1)
    assert found.confusion == Confusion(found=1, missed=0, passed=1, refused=1)
    assert found.metrics["balanced_accuracy"].value == 0.75
    assert last_agreement(tmp_path, "judge-2") is None


def test_a_damaged_measurement_is_as_good_as_none(tmp_path):
    keep_agreement(tmp_path, "judge", "judge-1", "a", Agreement(np.array([0.9]), np.array([True]), 1.0))
    [file] = tmp_path.rglob("*.json")
    file.write_text('{"judge": ')
    assert last_agreement(tmp_path, "judge-1") is None


@given(st.integers(1, 40), st.integers(1, 40))
def test_a_sample_of_rows_is_always_the_same(rows, limit):
    every = [Labelled(str(number), "", supported=True) for number in range(rows)]
    chosen = sample_rows(every, limit)
    assert chosen == sample_rows(every, limit)
    assert len(chosen) == min(rows, limit)
    assert [int(row.claim) for row in chosen] == sorted({int(row.claim) for row in chosen})
    assert sample_rows(every, None) == every


def test_a_fingerprint_names_the_judge_and_its_threshold():
    strict = LexicalJudge()
    strict.threshold = 0.9
    assert built_in_fingerprint(strict) != built_in_fingerprint(LexicalJudge())
    assert built_in_fingerprint(strict) == built_in_fingerprint(strict)
    assert built_in_fingerprint(strict).startswith("lexical overlap-")


# -- a language model ------------------------------------------------------------------------------------------------


def judged(*values):
    """The two replies for a row: its statements, and a verdict of each."""
    texts = [f"Statement {number}." for number in range(len(values))]
    verdicts = [{"statement": text, "reason": "", "verdict": v} for text, v in zip(texts, values, strict=True)]
    return stream(json.dumps({"statements": texts})), stream(json.dumps({"statements": verdicts}))


def test_a_language_model_on_rows():
    """A row is supported where all of its statements are; what the model makes no verdict of has failed."""
    rows = [Labelled(f"Claim {number}.", "Evidence.", supported=number < 2) for number in range(5)]
    bad = stream("no JSON")
    replies = (*judged(1, 1), *judged(1, 0), *judged(1), *judged(0, 0), bad)
    with ScriptedLLM() as server:
        server.on(CHAT, *replies)
        settings = ScoringSettings(judge="openai", base_url=server.base_url, attempts=1, in_flight=1)
        found, scored = score_rows(open_model_judge(settings), rows, settings)
    assert found.scores.tolist() == [1.0, 0.5, 1.0, 0.0]
    assert found.confusion() == Confusion(found=1, missed=1, passed=1, refused=1)
    assert (found.failed, len(found.labels), scored.judge) == (1, 4, f"openai:{MODEL}")


def test_a_language_model_that_judges_nothing_is_an_error():
    with ScriptedLLM() as server:
        server.on(CHAT, json_reply(401, {"error": "no"}))
        settings = ScoringSettings(judge="openai", base_url=server.base_url, attempts=1)
        with pytest.raises(Unavailable, match=r"scored none of 1 rows: The judge at .* refused scoring.api_key"):
            score_rows(open_model_judge(settings), [Labelled("a", "b", supported=True)], settings)


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_measures_the_judge_that_ships_and_keeps_it(tmp_path):
    """Figures, the confusion table, and beside the catalog what the reports go by."""
    file = write(tmp_path / "rows.jsonl.gz", ROWS)
    run = Cli(tmp_path / "data", tmp_path)
    found = run("eval", "judge", file, "--json").json
    assert found["judge"] == "built-in judge"
    assert found["confusion"] == {"found": 1, "missed": 0, "passed": 0, "refused": 1}
    assert (found["rows"], found["failed"], found["balanced_accuracy"]["value"]) == (2, 0, 1.0)
    [kept] = (tmp_path / "data" / "agreement").iterdir()
    assert json.loads(kept.read_text())["file"] == "rows.jsonl.gz"
    shown = run("eval", "judge", file, "--limit", "1").out
    assert "people say" in shown
    assert "1 row, " in shown


def test_the_command_measures_a_language_model(tmp_path):
    file = write(tmp_path / "rows.jsonl.gz", ROWS)
    run = Cli(tmp_path / "data", tmp_path)
    with ScriptedLLM() as server:
        server.on(CHAT, *judged(1), *judged(1, 0))
        settings = {"SCORING__BASE_URL": server.base_url, "SCORING__IN_FLIGHT": "1"}
        found = run("eval", "judge", file, "--llm", "--json", **settings).json
        again = run("eval", "judge", file, "--llm", "--json", **settings).json
        assert len(server.chats) == 4, "the second run takes what is kept"
    assert found["judge"] == f"openai:{MODEL}"
    assert found["confusion"] == again["confusion"] == {"found": 1, "missed": 0, "passed": 0, "refused": 1}
    wrong = run("eval", "judge", file, "--llm", status=2)
    assert wrong.err.startswith("citewell: No judge is set; set scoring.base_url")
    both = run("eval", "judge", file, "--llm", "--weights", tmp_path, status=2)
    assert both.err.startswith("citewell: --llm and --weights name two judges")
