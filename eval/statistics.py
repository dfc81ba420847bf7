"""How sure a mean is, and whether two rankings of the same questions differ: resampling, without assumed shapes.

Every draw comes from a generator with a fixed seed, so that the same figures are printed again for the same data.
Knows no question and no metric, only numbers, one a question.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

#: How many resamples an interval or a test draws; a p value of a drawn test is at least 1 / (DRAWS + 1).
DRAWS = 10_000
#: The same for statistics that are no means and take longer.
STATISTIC_DRAWS = 2_000
LEVEL = 0.95
SEED = 20_261_122
#: Up to so many questions a test runs through every assignment instead of drawing some.
ENUMERABLE = 12
#: Numbers held at a time while resampling.
_BLOCK = 2_000_000


@dataclass(frozen=True, slots=True)
class Difference:
    """How much the mean of one configuration is above that of another on the same questions: ``mean``, its interval,
    and the two-sided ``p_value`` of the hypothesis that it makes no difference which of the two ranked a question.
    """

    mean: float
    low: float
    high: float
    p_value: float


def interval(
    values: Sequence[float] | Numbers, *, level: float = LEVEL, draws: int = DRAWS, seed: int = SEED
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of ``values``; raises `ValueError` if there are none.

    Values are drawn with replacement, as many as there are, ``draws`` times; the interval holds the middle ``level``
    of the means (Efron and Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall 1993, chapter 13).
    """
    given = np.asarray(values, dtype=np.float64)
    if not given.size:
        raise ValueError("An interval needs at least one value.")
    rng = np.random.default_rng(seed)
    means = [given[rng.integers(given.size, size=(n, given.size))].mean(axis=1) for n in _blocks(draws, given.size)]
    return _middle(np.concatenate(means), level)


def interval_of(
    statistic: Callable[[npt.NDArray[np.intp]], float],
    rows: int,
    *,
    level: float = LEVEL,
    draws: int = STATISTIC_DRAWS,
    seed: int = SEED,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of any ``statistic`` of ``rows`` rows; raises `ValueError` at 0 rows.

    ``statistic`` gets the numbers of the rows that are drawn, with replacement; draws of which it is not a number (no
    row of one class among them) are left out.
    """
    if not rows:
        raise ValueError("An interval needs at least one row.")
    rng = np.random.default_rng(seed)
    found = np.array([statistic(rng.integers(rows, size=rows)) for _ in range(draws)])
    return _middle(found[~np.isnan(found)], level)


def interval_of_share(
    parts: Numbers, *, level: float = LEVEL, draws: int = STATISTIC_DRAWS, seed: int = SEED
) -> tuple[float, float]:
    """Return what `interval_of` does of one statistic, many times as fast: all that counts over all that is counted.

    ``parts`` (rows, 2) has of each row what counts and what is counted. Raises `ValueError` at 0 rows.
    """
    if not len(parts):
        raise ValueError("An interval needs at least one row.")
    rng = np.random.default_rng(seed)
    rows = len(parts)
    sums = np.concatenate([parts[rng.integers(rows, size=(n, rows))].sum(axis=1) for n in _blocks(draws, rows)])
    known = sums[sums[:, 1] > 0]
    return _middle(known[:, 0] / known[:, 1], level)


def _middle(drawn: Numbers, level: float) -> tuple[float, float]:
    """Return the bounds between which this share of what was drawn lies in the middle; NaN if nothing was."""
    if not drawn.size:
        return math.nan, math.nan
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare(first: Sequence[float] | Numbers, second: Sequence[float] | Numbers) -> Difference:
    """Return how far the mean of ``first`` is above that of ``second``, which has the same questions in the same order.

    Raises `ValueError` if their lengths differ or are 0.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"{a.size} values can not be paired with {b.size}.")
    differences = a - b
    low, high = interval(differences)
    return Difference(float(differences.mean()), low, high, p_value(differences))


def p_value(differences: Sequence[float] | Numbers) -> float:
    """Return the two-sided p value of the paired randomisation test that ``differences`` have mean 0.

    If it makes no difference which of two systems ranked a question, each difference might as well have the other sign;
    the p value is the share of sign assignments whose mean is at least as far from 0 as the one that was seen (Fisher;
    Smucker, Allan and Carterette, "A comparison of statistical significance tests for information retrieval
    evaluation", CIKM 2007). Up to `ENUMERABLE` differences that are not 0 it is exact, beyond that it is drawn.
    """
    given = np.asarray(differences, dtype=np.float64)
    moved = given[given != 0]  # a difference of 0 is the same with either sign
    return exact_p_value(moved) if moved.size <= ENUMERABLE else drawn_p_value(moved)


def exact_p_value(differences: Sequence[float] | Numbers) -> float:
    """Return the p value over all 2^n assignments of signs to n differences: the exact twin of `drawn_p_value`."""
    given = np.asarray(differences, dtype=np.float64)
    flips = (np.arange(2**given.size)[:, None] >> np.arange(given.size)) & 1
    return float(_as_far(flips, given).mean())


def drawn_p_value(differences: Sequence[float] | Numbers, *, draws: int = DRAWS, seed: int = SEED) -> float:
    """Return the p value over ``draws`` random assignments of signs, the one that was seen counted among them.

    Counting that one keeps the test valid at any number of draws (Phipson and Smyth, "Permutation p-values should never
    be zero", Statistical Applications in Genetics and Molecular Biology 9(1), 2010).
    """
    given = np.asarray(differences, dtype=np.float64)
    rng = np.random.default_rng(seed)
    as_far = sum(
        int(_as_far(rng.integers(2, size=(n, given.size), dtype=np.int8), given).sum())
        for n in _blocks(draws, given.size)
    )
    return (1 + as_far) / (1 + draws)


def _as_far(flips: npt.NDArray[np.integer], differences: Numbers) -> npt.NDArray[np.bool_]:
    """Say of each row of ``flips`` (1 where a sign is turned) whether its sum is as far from 0 as that of none."""
    seen = math.fsum(differences)
    sums = seen - 2 * (flips @ differences)
    rounding = 1e-9 * float(np.abs(differences).sum())  # sums that are equal on paper must count as equal
    return np.abs(sums) >= abs(seen) - rounding


def _blocks(rows: int, width: int) -> Iterator[int]:
    """Cut ``rows`` of ``width`` numbers into blocks that fit into memory."""
    step = max(1, _BLOCK // max(1, width))
    for start in range(0, rows, step):
        yield min(step, rows - start)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values corrected for being many, in the order given: compare each with the level as it stands.

    The chance that even one true hypothesis is rejected stays below the level, however the tests depend on each other:
    the smallest p counts as often as there are tests, the next one as often less one, and none less than one before it
    (Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6(2), 1979).
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected
