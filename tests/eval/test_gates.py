"""Gates: what passes, what does not and why, and files that are none."""

from __future__ import annotations

import pytest

from eval.figures import LAST_RUN, Change
from eval.gates import Gate, judged, read_gates
from rag.errors import BadInput


def change(mean, p_value, metric="correctness", versus=LAST_RUN):
    return Change(metric, versus, mean, mean, mean, p_value, 50)


def test_a_file_of_gates(tmp_path):
    file = tmp_path / "gates.toml"
    file.write_text('[[gate]]\nmetric = "correctness"\nminimum = 0.8\n\n[[gate]]\nmetric = "error_rate"\nmaximum = 0\n')
    first, second = read_gates(file)
    assert (first.metric, first.minimum, first.significance) == ("correctness", 0.8, 0.05)
    assert judged([first, second], {"correctness": 0.8, "error_rate": 0.0}, []).passed
    verdict = judged([first, second], {"correctness": 0.79, "error_rate": 0.01}, [])
    assert verdict.reasons == (
        "correctness is 0.79, below the minimum of 0.8.",
        "error_rate is 0.01, above the maximum of 0.",
    )


@pytest.mark.parametrize(
    ("mean", "p_value", "passed"),
    [
        pytest.param(-0.05, 0.01, False, id="sure_and_large"),
        pytest.param(-0.05, 0.2, True, id="may_be_chance"),
        pytest.param(-0.01, 0.01, True, id="small_enough"),
        pytest.param(0.2, 0.01, True, id="a_gain"),
    ],
)
def test_a_drop_counts_if_it_is_too_large_and_no_chance(mean, p_value, passed):
    gate = Gate(metric="correctness", maximum_drop=0.02)
    assert judged([gate], {"correctness": 0.5}, [change(mean, p_value)]).passed is passed
    assert judged([gate], {"correctness": 0.5}, [change(mean, p_value, versus="last 30 runs")]).passed


def test_a_gate_on_what_was_not_measured_does_not_pass():
    verdict = judged([Gate(metric="recall@5", minimum=0.1)], {}, [])
    assert verdict.reasons == ("recall@5 could not be measured.",)


def test_without_gates_only_a_sure_drop_of_a_headline_score_fails():
    assert judged(None, {}, []).passed
    assert judged(None, {"correctness": 0.1}, [change(-0.3, 0.06)]).passed
    verdict = judged(None, {"correctness": 0.1}, [change(-0.3, 0.04)])
    assert verdict.reasons == (
        "correctness dropped by 0.3 against the last run (p 0.04, 50 questions); at most 0 is allowed.",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[gate]", "is no TOML"),
        ("", "gate: Field required"),
        ("gate = []", "at least 1 item"),
        ('[[gate]]\nmetric = "x"', "a gate needs minimum, maximum or maximum_drop"),
        ('[[gate]]\nmetric = "x"\nminimun = 1', "gate.0.minimun"),
        ('[[gate]]\nmetric = "x"\nmaximum_drop = -1', "greater than or equal to 0"),
    ],
)
def test_a_file_that_is_none_is_refused_with_what_is_wrong(tmp_path, text, said):
    file = tmp_path / "gates.toml"
    file.write_text(text)
    with pytest.raises(BadInput) as caught:
        read_gates(file)
    assert said in caught.value.message
    with pytest.raises(BadInput, match="can not be read"):
        read_gates(tmp_path / "none.toml")
