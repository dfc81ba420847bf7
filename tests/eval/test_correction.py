"""The correction of a rate for the judge's errors: by hand, there and back again, and against the delta method."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from eval.correction import corrected_rate, delta_interval, rogan_gladen
from eval.judging import Confusion

RATES = st.floats(0.0, 1.0)


def test_a_rate_by_hand():
    """Of 100 claims 30 are called supported by a judge that finds 90 % of those that are and passes 20 % of the rest:
    p 0.9 + (1 - p) 0.2 = 0.3, so that p = 1/7.
    """
    assert rogan_gladen(0.3, 0.9, 0.8) == pytest.approx(1 / 7)
    assert rogan_gladen(0.3, 1.0, 1.0) == pytest.approx(0.3)


def test_a_rate_stays_a_rate():
    """What chance alone can give below the judge's false verdicts is none, and above its right ones all."""
    assert rogan_gladen(0.1, 0.9, 0.8) == 0.0
    assert rogan_gladen(0.95, 0.9, 0.8) == 1.0


@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.5, 0.5), (0.3, 0.6), (math.nan, 0.9)])
def test_verdicts_by_chance_say_nothing(sensitivity, specificity):
    assert math.isnan(rogan_gladen(0.3, sensitivity, specificity))


@given(rate=RATES, sensitivity=RATES, specificity=RATES)
def test_the_true_rate_comes_back(rate, sensitivity, specificity):
    """Whatever rate a judge with known errors observes, the correction undoes the errors."""
    assume(sensitivity + specificity - 1 > 0.01)
    observed = rate * sensitivity + (1 - rate) * (1 - specificity)
    assert rogan_gladen(observed, sensitivity, specificity) == pytest.approx(rate, abs=1e-9)


def test_an_interval_is_that_of_the_delta_method_where_claims_are_independent():
    """One claim an answer, many rows: the bootstrap and the plain formula agree to a hundredth."""
    confusion = Confusion(found=540, missed=60, passed=80, refused=320)
    found = corrected_rate([(1, 1)] * 240 + [(0, 1)] * 160, confusion)
    low, high = delta_interval(240, 400, confusion)
    assert found.value == pytest.approx((0.6 + 0.8 - 1) / 0.7)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)
    assert low < found.value < high


def test_an_interval_of_the_delta_method_by_hand():
    """q = .6 of 400, se = .9 of 600, sp = .8 of 400: the variance is (.0006 + .0000489796 + .0000734694) / .49."""
    low, high = delta_interval(240, 400, Confusion(540, 60, 80, 320))
    half = 1.959963984540054 * math.sqrt((0.0006 + (4 / 7) ** 2 * 0.09 / 600 + (3 / 7) ** 2 * 0.16 / 400) / 0.49)
    assert (low, high) == pytest.approx((4 / 7 - half, 4 / 7 + half))


def test_claims_of_one_answer_go_together():
    """The same claims in fewer answers say less: the interval is wider."""
    confusion = Confusion(900, 100, 100, 900)
    single = corrected_rate([(1, 1)] * 60 + [(0, 1)] * 40, confusion)
    together = corrected_rate([(10, 10)] * 6 + [(0, 10)] * 4, confusion)
    assert single.value == together.value == pytest.approx(0.625)
    assert together.high - together.low > 2 * (single.high - single.low)


def test_few_labelled_rows_make_the_interval_wider():
    """A judge that was tried on ten rows of either kind might be nearly blind, which the interval has to allow."""
    parts = [(1, 1)] * 60 + [(0, 1)] * 40
    few, many = corrected_rate(parts, Confusion(7, 3, 3, 7)), corrected_rate(parts, Confusion(700, 300, 300, 700))
    assert few.value == many.value == pytest.approx(0.75)
    assert (few.low, few.high) == (0.0, 1.0)
    assert 0.4 < many.low < 0.75 < many.high <= 1.0


def test_a_judge_without_errors_changes_nothing():
    found = corrected_rate([(3, 4), (1, 4), (0, 0)], Confusion(50, 0, 0, 50))
    assert found.value == 0.5
    assert (found.low, found.high) == (0.25, 0.75)


@pytest.mark.parametrize(
    ("parts", "confusion"),
    [
        ([], Confusion(9, 1, 1, 9)),
        ([(0, 0)], Confusion(9, 1, 1, 9)),
        ([(1, 2)], Confusion(0, 0, 1, 9)),
        ([(1, 2)], Confusion(9, 1, 0, 0)),
        ([(1, 2)], Confusion(5, 5, 5, 5)),
    ],
    ids=["no_answer", "no_claim", "no_supported_row", "no_other_row", "blind_judge"],
)
def test_nothing_is_made_up(parts, confusion):
    """Where nothing can be known there is no number."""
    assert corrected_rate(parts, confusion).as_json() == {"value": None, "low": None, "high": None}
