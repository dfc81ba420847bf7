"""Figures of runs: means, weights and groups by hand; changes in pairs, and no alarm where nothing changed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.figures import between, by_collection, by_tag, changes, figures, flat, latencies, rates
from eval.runs import Source
from eval.statistics import holm
from tests.eval.reported import asked, run_of


def test_a_figure_is_the_mean_over_those_that_have_a_score_and_counts_the_failures():
    every = [
        asked("1", {"correctness": 1}),
        asked("2", {"correctness": 0}),
        asked("3", failures={"correctness": "No."}),
    ]
    figure = figures(every)["correctness"]
    assert (figure.value, figure.count, figure.failed) == (0.5, 2, 1)
    assert (figure.low, figure.high) == (0, 1)
    assert "ndcg@10" not in figures(every, ["ndcg@10"])


def test_a_question_that_stands_for_several_weighs_as_much():
    figure = figures([asked("1", {"supported": 1.0}, weight=3), asked("2", {"supported": 0.0})])["supported"]
    assert figure.value == 0.75
    assert figure.low <= 0.75 <= figure.high


def test_groups_are_by_collection_and_by_tag():
    every = [
        asked("1", {"correctness": 1}, collection="a", tags=("x", "y")),
        asked("2", {"correctness": 0}, collection="b", tags=("y",)),
    ]
    names = ["correctness"]
    assert {name: found["correctness"].value for name, found in by_collection(every, names).items()} == {"a": 1, "b": 0}
    assert {name: found["correctness"].value for name, found in by_tag(every, names).items()} == {"x": 1, "y": 0.5}


def test_rates_and_percentiles_are_of_what_was_asked_now():
    """Of four questions that were asked one got no answer, one the reader's; an answer of the log is none of them."""
    every = [
        asked("1", seconds={"end": 1.0}), asked("2", seconds={"end": 3.0}, fallen_back=True),
        asked("3", error="Down."), asked("4", seconds={"end": 2.0}, abstained=True),
        asked("5", source=Source.TRAFFIC, abstained=True),
    ]  # fmt: skip
    assert rates(every) == {"error_rate": 0.25, "fall_back_rate": 0.25, "abstention_rate": 0.25}
    assert latencies(every) == {"end": {"p50": 2.0, "p95": 2.9, "p99": 2.98}}
    known = flat(run_of(every))
    assert (known["error_rate"], known["seconds_end_p50"]) == (0.25, 2.0)


def test_golden_scores_are_of_golden_questions_alone():
    run = run_of([asked("1", {"correctness": 1}), asked("2", {"correctness": 0}, source=Source.GENERATED)])
    assert flat(run)["correctness"] == 1


# -- changes ---------------------------------------------------------------------------------------------------------


def scored(values, name="a"):
    return run_of([asked(str(key), {"correctness": value}) for key, value in enumerate(values)], name)


def test_a_drop_of_every_question_is_sure_and_in_pairs():
    moved = changes(scored([0.5] * 20), [scored([0.9] * 20)])
    [change] = moved
    assert (change.metric, change.versus, change.count) == ("correctness", "last run", 20)
    assert change.mean == pytest.approx(-0.4)
    assert change.is_sure


def test_only_questions_that_both_runs_asked_are_compared():
    before = run_of([asked("1", {"correctness": 1}), asked("gone", {"correctness": 0})])
    now = run_of([asked("1", {"correctness": 1}), asked("new", {"correctness": 0})])
    [change] = changes(now, [before])
    assert (change.mean, change.count, change.p_value) == (0, 1, 1)
    assert changes(run_of([asked("new", {"correctness": 0})]), [before]) == []
    assert changes(now, []) == []


def test_a_question_is_compared_with_its_mean_over_the_runs_before():
    last, month = changes(scored([1.0] * 8), [scored([1.0] * 8), scored([0.0] * 8), scored([0.5] * 8)])
    assert (last.mean, last.runs) == (0, 1)
    assert (month.mean, month.runs) == (0.5, 3)


def test_two_settings_are_compared_source_by_source_and_not_on_what_people_were_told():
    one = run_of([asked("1", {"supported": 1}), asked("2", {"supported": 1}, source=Source.GENERATED),
                  asked("3", {"supported": 1}, source=Source.TRAFFIC)], "a")  # fmt: skip
    other = run_of([asked("1", {"supported": 0}), asked("2", {"supported": 0}, source=Source.GENERATED),
                    asked("3", {"supported": 0}, source=Source.TRAFFIC)], "b")  # fmt: skip
    found = between(one, other)
    assert [(c.mean, c.count, c.versus, c.scope.source) for c in found] == [
        (1, 1, "b", Source.GOLDEN), (1, 1, "b", Source.GENERATED)
    ]  # fmt: skip


def test_an_unchanged_system_raises_no_alarm():
    """Twenty repeats whose scores differ by chance alone, six metrics each: at most one of them has a sure change."""
    rng = np.random.default_rng(5)
    names = ["correctness", "supported", "faithfulness", "recall@5", "ndcg@10", "citation_recall"]
    good = rng.random(60)

    def drawn(name):
        return run_of(
            [asked(str(k), {n: float(rng.random() < good[k]) for n in names}) for k in range(len(good))], name
        )

    before = [drawn("first")]
    alarms = 0
    for number in range(20):
        run = drawn(str(number))
        alarms += any(change.is_sure for change in changes(run, before))
        before.insert(0, run)
    assert alarms <= 1


# -- Holm ------------------------------------------------------------------------------------------------------------


def test_p_values_are_corrected_as_holm_has_it():
    """0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1 which is less than the one before and so equal to it."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_correction_keeps_the_order_and_lies_between_the_p_value_and_bonferroni(p_values):
    found = holm(p_values)
    for p, corrected in zip(p_values, found, strict=True):
        assert p <= corrected <= min(1.0, p * len(p_values)) + 1e-12
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [found[i] for i in order] == sorted(found)
    assert min(found) == pytest.approx(min(1.0, min(p_values) * len(p_values)))
