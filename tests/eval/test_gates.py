"""Gates: what passes, what does not and why, and files that are none."""

from __future__ import annotations

import pytest

from eval.figures import LAST_RUN, changes
from eval.gates import Gate, compared, judged, read_gates
from eval.runs import Change, Scope, Service, Source
from rag.errors import BadInput
from tests.eval.reported import asked, run_of


def change(mean, p_value, metric="correctness", versus=LAST_RUN):
    return Change(metric, versus, mean, mean, mean, p_value, 50)


def scored(value, metric="correctness", errors=0):
    """A run of a hundred questions that score so, and some that got no answer."""
    return run_of([asked(str(n), {metric: value}, error="Down." if n < errors else None) for n in range(100)])


def test_a_file_of_gates(tmp_path):
    file = tmp_path / "gates.toml"
    file.write_text('[[gate]]\nmetric = "correctness"\nminimum = 0.8\n\n[[gate]]\nmetric = "error_rate"\nmaximum = 0\n')
    first, second = read_gates(file)
    assert (first.metric, first.minimum, first.significance) == ("correctness", 0.8, 0.05)
    assert judged([first, second], scored(0.8), []).passed
    verdict = judged([first, second], scored(0.79, errors=1), [])
    assert verdict.reasons == (
        "correctness is 0.79, below the minimum of 0.8.",
        "error_rate is 0.01, above the maximum of 0.",
    )
    assert verdict.gates == (
        {"metric": "correctness", "minimum": 0.8, "significance": 0.05},
        {"metric": "error_rate", "maximum": 0.0, "significance": 0.05},
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
    assert judged([gate], scored(0.5), [change(mean, p_value)]).passed is passed
    assert judged([gate], scored(0.5), [change(mean, p_value, versus="last 30 runs")]).passed


def test_a_gate_on_what_was_not_measured_does_not_pass():
    verdict = judged([Gate(metric="recall@5", minimum=0.1)], run_of([]), [])
    assert verdict.reasons == ("recall@5 could not be measured.",)


def test_without_gates_only_a_sure_drop_of_a_headline_score_fails():
    assert judged(None, run_of([]), []).passed
    assert judged(None, scored(0.1), [change(-0.3, 0.06)]).passed
    verdict = judged(None, scored(0.1), [change(-0.3, 0.04)])
    assert verdict.reasons == (
        "correctness dropped by 0.3 against the last run (p 0.04, 50 questions); at most 0 is allowed.",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[gate]", "is no TOML"),
        ("", "gate: Field required"),
        ("gate = []", "at least 1 item"),
        ('[[gate]]\nmetric = "correctness"', "a gate needs minimum, maximum or maximum_drop"),
        ('[[gate]]\nmetric = "correctnes"\nminimum = 1', "there is no metric 'correctnes'; there are correctness, "),
        ('[[gate]]\nmetric = "x"\nminimun = 1', "gate.0.minimun"),
        ('[[gate]]\nmetric = "x"\nmaximum_drop = -1', "greater than or equal to 0"),
        ('[[gate]]\nmetric = "error_rate"\nmaximum_drop = 0.1', "use maximum"),
        ('[[gate]]\nmetric = "supported"\nsource = "traffic"\nmaximum_drop = 0.1', "traffic has others each night"),
        ('[[gate]]\nmetric = "passages"\nminimum = 1\ntag = "a"', "of the whole service"),
        ('[[gate]]\nmetric = "f1"\nminimum = 1\nsource = "folder"', "there is no metric 'f1'"),
        ('[[gate]]\nmetric = "recall@5"\nminimum = 1\nsource = "folder"', "citewell eval"),
        ('[[gate]]\nmetric = "recall@5"\nminimum = 1\nsource = "people"', "gate.0.source"),
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


# -- of some questions -----------------------------------------------------------------------------------------------


def mixed(low):
    """Sixty golden questions of two collections and tags, of which those in ``low`` score 0; others score a half."""
    golden = [
        asked(
            str(n), {"correctness": float(n not in low)}, collection="ab"[n % 2], tags=("odd",) if n % 2 else ("even",),
            seconds={"end": 1.0 + n % 2},
        )
        for n in range(60)
    ]  # fmt: skip
    seen = [asked(f"t{n}", {"supported": float(n)}, source=Source.TRAFFIC, weight=3 - 2 * n) for n in range(2)]
    return run_of([*golden, *seen, asked("g", {"correctness": 0.5}, source=Source.GENERATED)])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        pytest.param({"collection": "b"}, "correctness in b is 0.6667, below", id="collection"),
        pytest.param({"tag": "odd"}, "correctness with the tag odd is 0.6667, below", id="tag"),
        pytest.param({"source": "generated"}, "correctness of generated questions is 0.5, below", id="source"),
        pytest.param({"collection": "b", "tag": "even"}, "correctness in b with the tag even could not be", id="none"),
        pytest.param(
            {"metric": "supported", "source": "traffic"}, "supported of traffic questions is 0.25", id="weights"
        ),
        pytest.param({"collection": "a"}, None, id="passed"),
        pytest.param({"source": "golden", "minimum": 0.8}, None, id="all_golden"),
    ],
)
def test_a_gate_may_speak_of_some_questions(values, reason):
    """Ten of the thirty odd questions fail; golden ones are meant unless another source is named."""
    verdict = judged([Gate(**{"metric": "correctness", "minimum": 0.9, **values})], mixed(range(1, 20, 2)), [])
    assert verdict.passed is (reason is None)
    assert reason is None or verdict.reasons[0].startswith(reason)


def test_seconds_and_rates_are_of_some_questions_too():
    run = mixed(())
    slow = Gate(metric="seconds_end_p50", maximum=1.5, tag="odd")
    assert judged([slow], run, []).reasons == ("seconds_end_p50 with the tag odd is 2, above the maximum of 1.5.",)
    assert judged([slow.model_copy(update={"tag": "even"})], run, []).passed
    few = run_of([], service=Service(passages=3))
    assert judged([Gate(metric="passages", minimum=4)], few, []).reasons == ("passages is 3, below the minimum of 4.",)


def test_a_drop_of_some_questions_is_compared_with_the_last_run():
    """All twelve failures have one tag; that no headline score dropped by as much does not hide it."""
    gates = [Gate(metric="correctness", maximum_drop=0.25, tag=tag) for tag in ("odd", "even")]
    run = mixed(range(1, 24, 2))
    moved = changes(run, [mixed(())], compared(gates))
    verdict = judged(gates, run, moved)
    assert [why.partition(" against")[0] for why in verdict.reasons] == ["correctness with the tag odd dropped by 0.4"]
    assert [change.scope for change in moved] == [Scope(), Scope(tag="odd"), Scope(tag="even")]


def test_what_should_be_low_gets_worse_by_rising():
    gate = Gate(metric="noise_sensitivity", maximum_drop=0.1)
    low, high = scored(0.1, "noise_sensitivity"), scored(0.4, "noise_sensitivity")
    worse = judged([gate], high, changes(high, [low], compared([gate])))
    assert worse.reasons[0].startswith("noise_sensitivity rose by 0.3 against the last run (p ")
    assert judged([gate], low, changes(low, [high], compared([gate]))).passed
