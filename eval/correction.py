"""What a rate that a judge observed says of the true one, when it is known how the judge errs.

A judge that finds a share ``q`` of claims supported has found some of them wrongly. With its sensitivity ``se`` (of the
supported claims those that it calls so) and its specificity ``sp`` (of the others those that it does not), a true rate
``p`` is observed as ``q = p se + (1 - p) (1 - sp)``, so that ``p = (q + sp - 1) / (se + sp - 1)`` [1]. The interval has
to say how sure all three are: that of the bootstrap here, and of the delta method, which is its plain twin.

It holds as far as the labelled rows, by which the judge's errors were counted, are like the claims that it judges now.

[1] Rogan and Gladen, "Estimating prevalence from the results of a screening test", American Journal of Epidemiology
107(1), 1978.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from eval.judging import Confusion, Metric
from eval.statistics import DRAWS, LEVEL, SEED, Numbers

#: The quantile of the normal distribution behind `LEVEL`.
_Z = 1.959963984540054


def rogan_gladen(observed: float, sensitivity: float, specificity: float) -> float:
    """Return the true rate behind an ``observed`` one, within 0 and 1.

    NaN where the judge does not tell the two kinds apart: its verdicts then say nothing of the rate.
    """
    informed = sensitivity + specificity - 1
    if not informed > 0:
        return math.nan
    return min(1.0, max(0.0, (observed + specificity - 1) / informed))


def corrected_rate(
    parts: Sequence[tuple[int, int]], confusion: Confusion, *, draws: int = DRAWS, seed: int = SEED
) -> Metric:
    """Return the corrected share of supported claims with its 95 % bootstrap interval.

    ``parts`` has for each answer how many of its claims the judge found supported, and how many it has; ``confusion``
    counts how the judge did on rows that people labelled. Answers are drawn whole, since the claims of one go together;
    drawing labelled rows of one kind with replacement is to draw from a binomial distribution. A draw by which the
    judge tells nothing apart allows every rate, and counts as one from 0 to 1. NaN without claims or without rows of
    either kind, or where the judge tells nothing apart.
    """
    counts: Numbers = np.array(parts, dtype=np.float64).reshape(-1, 2)
    supported, claims = counts.sum(axis=0)
    if not claims or not confusion.supported or not confusion.unsupported:
        return Metric(math.nan, math.nan, math.nan)
    value = rogan_gladen(float(supported / claims), confusion.sensitivity, confusion.specificity)
    if math.isnan(value):
        return Metric(value, value, value)
    rng = np.random.default_rng(seed)
    rates = _drawn_rates(counts, draws, rng)
    sensitivities = rng.binomial(confusion.supported, confusion.sensitivity, draws) / confusion.supported
    specificities = rng.binomial(confusion.unsupported, confusion.specificity, draws) / confusion.unsupported
    drawn = np.array([rogan_gladen(*one) for one in zip(rates, sensitivities, specificities, strict=True)])
    lows, highs = np.where(np.isnan(drawn), 0.0, drawn), np.where(np.isnan(drawn), 1.0, drawn)
    return Metric(value, float(np.quantile(lows, (1 - LEVEL) / 2)), float(np.quantile(highs, (1 + LEVEL) / 2)))


def delta_interval(supported: int, claims: int, confusion: Confusion) -> tuple[float, float]:
    """Return the 95 % interval of the corrected rate by the delta method, for claims that are independent.

    The variance is that of Rogan and Gladen: with n claims, and m and k labelled rows of either kind,
    ``(q (1 - q) / n + p^2 se (1 - se) / m + (1 - p)^2 sp (1 - sp) / k) / (se + sp - 1)^2``.
    """
    q, se, sp = supported / claims, confusion.sensitivity, confusion.specificity
    p = rogan_gladen(q, se, sp)
    spread = (
        q * (1 - q) / claims
        + p**2 * se * (1 - se) / confusion.supported
        + (1 - p) ** 2 * sp * (1 - sp) / confusion.unsupported
    )
    half = _Z * math.sqrt(spread) / (se + sp - 1)
    return max(0.0, p - half), min(1.0, p + half)


def _drawn_rates(counts: Numbers, draws: int, rng: np.random.Generator) -> Numbers:
    """Return the share of supported claims in so many draws of as many answers, with replacement.

    An answer without claims adds nothing; a draw of such alone, which has no rate, is impossible where all have some.
    """
    some = counts[counts[:, 1] > 0]
    sums = np.array([some[rng.integers(len(some), size=len(some))].sum(axis=0) for _ in range(draws)])
    rates: Numbers = sums[:, 0] / sums[:, 1]
    return rates
