"""Intervals and paired tests: against their exact twins, and against what they promise over many samples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.statistics import compare, drawn_p_value, exact_p_value, interval, interval_of, interval_of_share, p_value

small = st.lists(st.sampled_from([-1.0, -0.5, -0.1, 0.0, 0.1, 0.3, 0.5, 1.0]), min_size=1, max_size=8)


def every_sign(differences: list[float]) -> float:
    """The p value by its definition, in plain Python."""
    seen = abs(math.fsum(differences))
    signs = list(itertools.product([1, -1], repeat=len(differences)))
    sums = [abs(math.fsum(s * d for s, d in zip(sign, differences, strict=True))) for sign in signs]
    return sum(total >= seen - 1e-12 for total in sums) / len(signs)


@given(small)
def test_the_test_is_exact_for_few_questions(differences):
    """Every assignment of signs counts once; differences of 0 change nothing."""
    assert p_value(differences) == pytest.approx(every_sign(differences))
    assert p_value([*differences, 0.0, 0.0]) == pytest.approx(p_value(differences))


@given(small)
def test_the_test_knows_no_direction(differences):
    assert p_value([-d for d in differences]) == p_value(differences)


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.9])
def test_drawn_signs_agree_with_all_signs(shift):
    """Within four standard errors of a share of 10,000 draws."""
    differences = np.random.default_rng(7).normal(shift, 1, size=14)
    exact = exact_p_value(differences)
    error = math.sqrt(exact * (1 - exact) / 10_000)
    assert drawn_p_value(differences) == pytest.approx(exact, abs=4 * error + 1e-4)


def test_p_values_by_hand():
    """Three gains: of eight assignments, two are as far from 0. No difference at all: every one is."""
    assert exact_p_value([1.0, 1.0, 1.0]) == 0.25
    assert exact_p_value([2.0, -1.0, 0.5]) == 0.75  # 1.5, beside 3.5, 2.5, and 0.5 which is nearer
    assert p_value([0.0] * 40) == 1.0
    assert drawn_p_value([0.1] * 200) == pytest.approx(1 / 10_001)


def test_a_true_hypothesis_is_rejected_as_often_as_the_level_says():
    """Of 400 pairs that differ by nothing but chance, 5 % have p <= 0.05, give or take three standard errors."""
    rng = np.random.default_rng(11)
    rejected = sum(drawn_p_value(rng.normal(size=30), draws=400, seed=n) <= 0.05 for n in range(400))
    assert abs(rejected / 400 - 0.05) <= 3 * math.sqrt(0.05 * 0.95 / 400)


def test_an_interval_holds_the_mean_as_often_as_it_says():
    """Of 400 samples of 100 skewed values, about 95 % of the intervals hold the mean that they were drawn around."""
    rng = np.random.default_rng(13)
    held = 0
    for n in range(400):
        low, high = interval(rng.beta(5, 1, size=100), draws=1000, seed=n)
        held += low <= 5 / 6 <= high
    assert abs(held / 400 - 0.95) <= 0.035


def test_an_interval_is_that_of_the_normal_distribution_for_many_values():
    """1,000 coin tosses: the mean and 1.96 standard errors to each side."""
    low, high = interval([0.0, 1.0] * 500)
    error = 1.96 * math.sqrt(0.25 / 1000)
    assert (low, high) == (pytest.approx(0.5 - error, abs=0.003), pytest.approx(0.5 + error, abs=0.003))


def test_equal_values_leave_no_doubt_and_none_at_all_are_refused():
    assert interval([0.4] * 20) == (pytest.approx(0.4), pytest.approx(0.4))
    assert interval([0.4]) == (0.4, 0.4)
    with pytest.raises(ValueError, match="at least one"):
        interval([])


def test_a_comparison_is_of_pairs():
    """The gain is the same for each question, however much the questions differ among themselves."""
    first, second = [0.1, 0.5, 0.9, 0.3, 0.7] * 10, [0.0, 0.4, 0.8, 0.2, 0.6] * 10
    found = compare(first, second)
    assert (found.mean, found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.1))
    assert found.p_value == pytest.approx(1 / 10_001)
    assert compare(second, first).mean == pytest.approx(-0.1)
    with pytest.raises(ValueError, match="can not be paired"):
        compare([1.0], [1.0, 2.0])


def test_the_same_values_get_the_same_figures_again():
    values = np.random.default_rng(3).random(50)
    assert interval(values) == interval(values)
    assert p_value(values - 0.45) == p_value(values - 0.45)


parts = st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0, 2.0])), min_size=1, max_size=9)


@given(parts)
@settings(max_examples=25)
def test_the_interval_of_a_share_is_that_of_its_plain_twin(rows):
    """The same draws, one after the other and all at once; draws in which nothing is counted are left out."""
    sums = np.array(rows)

    def share(drawn):
        counts, counted = sums[drawn].sum(axis=0)
        return float(counts / counted) if counted else math.nan

    assert interval_of_share(sums) == pytest.approx(interval_of(share, len(rows)), nan_ok=True)
    with pytest.raises(ValueError, match="at least one row"):
        interval_of_share(sums[:0])
