"""Values of a trained model as probabilities: fitted on the held rows of the training files, never on dev.

Platt, "Probabilistic Outputs for Support Vector Machines" (1999): a logistic regression, here over the few values that
the model gives of a row. Knows no dev set.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from eval.training.rows import JudgeRow, ReaderRow
from eval.training.train import split_rows
from rag.judge import TrainedJudge
from rag.pair_model import TrainedPairs
from rag.span_reader import Asked, SpanReader

Numbers = npt.NDArray[np.float64]
#: How strongly weights are drawn to 0: as much as so many rows would.
_PULL = 1.0


def fit_logistic(values: Numbers, right: Numbers) -> tuple[list[float], float]:
    """Return weights and offset of the logistic regression of ``right`` (n,) on ``values`` (n, k), by Newton's method.

    With p = 1 / (1 + exp(-X w)), X = [values, 1]: w <- w + (X' diag(p (1 - p)) X + L)^-1 (X' (right - p) - L w), where
    L draws the weights to 0, but not the offset.
    """
    design = np.column_stack([values, np.ones(len(values))])
    pull = np.diag([_PULL] * values.shape[1] + [1e-6])
    weights = np.zeros(design.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        curve = design.T @ (design * (chance * (1 - chance))[:, None]) + pull
        step = np.linalg.solve(curve, design.T @ (right - chance) - pull @ weights)
        weights += step
        if float(np.abs(step).max()) < 1e-8:
            break
    return [float(weight) for weight in weights[:-1]], float(weights[-1])


def calibrate(task: str, data: Path, folder: Path, seed: int) -> None:
    """Fit the probabilities of the model in ``folder`` on the held rows of ``task`` and write them beside it."""
    file = folder / f"{task}.json"
    file.write_text(json.dumps({}), encoding="utf-8")  # what has no calibration yet can be opened
    held = split_rows(task, data, seed)[1]
    model = TrainedPairs(task, folder)
    if task == "reader":
        facts = _reader_facts(model, cast("Sequence[ReaderRow]", held))
    else:
        facts = _judge_facts(model, cast("Sequence[JudgeRow]", held))
    model.close()
    file.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _reader_facts(model: TrainedPairs, held: Sequence[ReaderRow]) -> dict[str, object]:
    signs = SpanReader(model)
    values = signs.signs([Asked(row.question, row.context, row.text) for row in held])
    weights, offset = fit_logistic(values, np.array([float(row.answerable) for row in held]))
    return {"answers": {"weights": weights, "offset": offset}, "held_rows": len(held)}


def _judge_facts(model: TrainedPairs, held: Sequence[JudgeRow]) -> dict[str, object]:
    """Claims of one part only: of a long one that is not supported nobody knows which part is not."""
    found = TrainedJudge(model).signs([(row.claim, row.evidence) for row in held])
    whole = [(signs[0], row.supported) for signs, row in zip(found, held, strict=True) if len(signs) == 1]
    right = np.array([float(supported) for _, supported in whole])
    weights, offset = fit_logistic(np.array([signs for signs, _ in whole]), right)
    return {"supported": {"weights": weights, "offset": offset}, "held_rows": len(held)}
