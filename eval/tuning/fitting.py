"""What can be learnt without a step of gradient: the weights of the parts, and a rotation of the questions' vectors.

The query adapter is the orthogonal matrix that brings questions nearest to the passages that answer them,

    A = argmin over A'A = I of sum over pairs of |q A - p|^2 = U V',   U S V' the singular values of sum q'p + c I

(Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31, 1966). The pull c towards
leaving questions as they are is chosen between folds of the training questions. Knows no search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from eval.tuning.mining import Mined, Reread, gain, ranked
from rag.protocols import Vectors
from rag.retrieval import beside

#: The weights that are tried, and how much better others must rank the training questions to be taken.
WEIGHTS = tuple(round(0.1 * n, 1) for n in range(11))
LEAST = 0.002
#: The weights of the reader's log odds that are tried, beside a standard deviation of the scores.
COUNTS = (0.1, 0.2, 0.4, 0.8)
#: The pulls that are tried, in pairs of a question with itself for each pair that there is; and into how many folds.
PULLS = (30.0, 10.0, 3.0, 1.0, 0.3)
FOLDS = 4
Matrix = npt.NDArray[np.float64]


def fit_weights(mined: Sequence[Mined], usual: tuple[float, float], looked_at: int) -> tuple[float, float]:
    """Return the dense and the late weight that rank the training questions best, or the ``usual`` ones.

    Others are taken only if they are better by `LEAST`; of equal ones those nearest to the usual.
    """

    def mean(weights: tuple[float, float]) -> float:
        return float(np.mean([gain(ranked(one, *weights, looked_at), one.targets) for one in mined]))

    tried = sorted({(a, b) for a in WEIGHTS for b in WEIGHTS}, key=lambda pair: _distance(pair, usual))
    means = {weights: mean(weights) for weights in tried}
    best = max(tried, key=lambda weights: means[weights])
    return best if means[best] >= mean(usual) + LEAST else usual


def _distance(one: tuple[float, float], other: tuple[float, float]) -> float:
    return abs(one[0] - other[0]) + abs(one[1] - other[1])


def fit_reader(read: Sequence[Reread]) -> float:
    """Return what a log odds of the reader is to count so that the training questions are ranked best; 0: nothing.

    It is taken only if it ranks them better by `LEAST` than without it.
    """

    def mean(weight: float) -> float:
        return float(np.mean([gain(_order(one, weight), one.targets) for one in read]))

    best = max(COUNTS, key=mean)
    return best if mean(best) >= mean(0.0) + LEAST else 0.0


def _order(read: Reread, weight: float) -> list[int]:
    scores = beside(read.scores, read.log_odds, weight)
    return [read.answers[place] for place in sorted(range(len(scores)), key=lambda place: -scores[place])]


def procrustes(asked: Vectors, answering: Vectors, pull: float) -> Vectors:
    """Return the orthogonal matrix (d, d) of the pairs ``asked`` and ``answering`` (n, d); see above."""
    product: Matrix = asked.T.astype(np.float64) @ answering.astype(np.float64)
    product += pull * len(asked) / asked.shape[1] * np.eye(asked.shape[1])
    left, _, right = np.linalg.svd(product)
    found: Vectors = (left @ right).astype(np.float32)
    return found


@dataclass(frozen=True, slots=True)
class Pair:
    """A question as vectors: ``asked`` (d,), the nearest passage that answers it (d,), and its candidates (n, d)."""

    asked: Vectors
    answering: Vectors
    candidates: Vectors
    mined: Mined
    group: str


def fit_adapter(pairs: Sequence[Pair], weights: tuple[float, float], looked_at: int) -> Vectors | None:
    """Return the rotation (d, d) that helps questions of other documents than those it is learnt from; None if none.

    How far it may turn is chosen over `FOLDS` folds of the documents, by how the candidates are ranked with it.
    """
    folds = {group: number % FOLDS for number, group in enumerate(sorted({pair.group for pair in pairs}))}
    if len(folds) < FOLDS:
        return None
    by_fold = [[pair for pair in pairs if folds[pair.group] == fold] for fold in range(FOLDS)]
    others = [[pair for pair in pairs if folds[pair.group] != fold] for fold in range(FOLDS)]

    def mean(pull: float | None) -> float:
        gains: list[float] = []
        for own, rest in zip(by_fold, others, strict=True):
            turn = None if pull is None else _rotation(rest, pull)
            gains += [_gain(pair, turn, weights, looked_at) for pair in own]
        return float(np.mean(gains))

    best = max(PULLS, key=mean)
    return _rotation(pairs, best) if mean(best) >= mean(None) + LEAST else None


def _rotation(pairs: Sequence[Pair], pull: float) -> Vectors:
    return procrustes(np.array([pair.asked for pair in pairs]), np.array([pair.answering for pair in pairs]), pull)


def _gain(pair: Pair, turn: Vectors | None, weights: tuple[float, float], looked_at: int) -> float:
    """Return how well the candidates of a question are ranked if it is turned; all of them have a dense score then."""
    asked = pair.asked if turn is None else pair.asked @ turn
    scores: list[float | None] = [*map(float, pair.candidates @ asked)]
    return gain(ranked(replace(pair.mined, dense=scores), *weights, looked_at), pair.mined.targets)
