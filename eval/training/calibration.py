"""Values of a trained model as probabilities: fitted on the held rows of the training files, never on dev.

Platt, "Probabilistic Outputs for Support Vector Machines" (1999): a logistic regression, here over the few values that
the model gives of a row, and over those of it and of the reader that knows no training, for each sentence. Knows no dev
set.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from eval.bench_reader import Asked as Retrieved
from eval.bench_reader import untrained_settings
from eval.reading import is_said
from eval.training.retrieved import retrieved
from eval.training.rows import JudgeRow, ReaderRow
from eval.training.train import split_rows
from rag.assembly import open_citewell
from rag.judge import TrainedJudge
from rag.pair_model import TrainedPairs
from rag.reader import Reader
from rag.span_reader import Asked, SpanReader
from rag.trained_reader import Seen, TrainedReader

Numbers = npt.NDArray[np.float64]
#: The share of the answerable questions that the reader may be silent to: what is less likely to be answered than all
#: but so many of them is not answered.
SILENT = 0.03
#: Rows with claims that people wrote and judged, beside the evidence that they judged them by or evidence of others.
_CLAIMED = ("fever_rte", "scifact_rte", "begin_wow")
#: Rows of the reader that are claims as questions: nobody asks so, and a threshold that is fitted on them answers less.
CLAIMS = "claim"
#: How strongly weights are drawn to 0: as much as so many rows would.
_PULL = 1.0


def fit_logistic(values: Numbers, right: Numbers) -> tuple[list[float], float]:
    """Return weights and offset of the logistic regression of ``right`` (n,) on ``values`` (n, k), by Newton's method.

    With p = 1 / (1 + exp(-X w)), X = [values, 1]: w <- w + (X' diag(p (1 - p)) X + L)^-1 (X' (right - p) - L w), where
    L draws the weights to 0, but not the offset: each by the variance of its value, so that units do not matter.
    """
    design = np.column_stack([values, np.ones(len(values))])
    pull = np.diag([*(_PULL * values.var(axis=0) + 1e-6), 1e-6])
    weights = _newton(design, pull, np.zeros(len(values)), right)
    return [float(weight) for weight in weights[:-1]], float(weights[-1])


def fit_slope(odds: Numbers, value: Numbers, right: Numbers) -> float:
    """Return the weight of one ``value`` (n,) that is added to log ``odds`` (n,) known already, see `fit_logistic`."""
    pull = np.diag([_PULL * value.var() + 1e-6])
    return float(_newton(value[:, None], pull, odds, right)[0])


def _newton(design: Numbers, pull: Numbers, odds: Numbers, right: Numbers) -> Numbers:
    """Return the weights (k,) of the columns of ``design`` (n, k) that are added to log ``odds`` (n,) known already."""
    weights = np.zeros(design.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(odds + design @ weights, -30, 30)))
        curve = design.T @ (design * (chance * (1 - chance))[:, None]) + pull
        step = np.linalg.solve(curve, design.T @ (right - chance) - pull @ weights)
        weights += step
        if float(np.abs(step).max()) < 1e-8:
            break
    return weights


def calibrate(task: str, data: Path, folder: Path, seed: int) -> None:
    """Fit the probabilities of the model in ``folder`` on the held rows of ``task`` and write them beside it.

    What is there of an earlier calibration stays until the new one is complete.
    """
    trained, held = split_rows(task, data, seed, without=CLAIMS)
    with tempfile.TemporaryDirectory() as scratch, closing(_bare(task, folder, Path(scratch))) as model:
        if task == "reader":
            facts = _reader_facts(model, cast("list[ReaderRow]", trained), cast("list[ReaderRow]", held))
        else:
            facts = _judge_facts(model, cast("Sequence[JudgeRow]", held))
    part = folder / f"{task}.json.part"
    part.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / f"{task}.json")


def _bare(task: str, folder: Path, scratch: Path) -> TrainedPairs:
    """Open the model in ``folder`` without any calibration."""
    shutil.copy(folder / f"{task}.onnx", scratch)
    (scratch / f"{task}.json").write_text("{}", encoding="utf-8")
    return TrainedPairs(task, scratch)


def _reader_facts(model: TrainedPairs, trained: list[ReaderRow], held: list[ReaderRow]) -> dict[str, object]:
    spans = SpanReader(model)
    values = spans.signs([Asked(row.question, row.context, row.text) for row in held])
    model.facts["answers"] = _fitted(values, np.array([float(row.answerable) for row in held]))
    with open_citewell(untrained_settings()) as citewell, tempfile.TemporaryDirectory() as scratch:
        asked = [*retrieved(citewell, [*trained, *held], held, Path(scratch))]
        reader = TrainedReader(spans, Reader(citewell.embedder))
        seen = [reader.see(one.question, one.passages) for one in asked]
    return {**model.facts, **join_readers(asked, seen), "held_rows": len(held), "held_questions": len(asked)}


def join_readers(asked: Sequence[Retrieved], seen: Sequence[Sequence[Seen]]) -> dict[str, object]:
    """Return what joins the values of sentences, see `rag.trained_reader`, of questions beside retrieved passages.

    ``sentences`` are the log odds that a sentence holds the answer, from its values; ``passages`` those that all of a
    question's passages answer, from its best sentence; ``threshold`` is the probability of the latter that all but
    `SILENT` of the answered questions reach.
    """
    right = [[is_said(s.text, one.answers) for s in found] for one, found in zip(asked, seen, strict=True)]
    values = np.array([sentence.values for found in seen for sentence in found])
    sentences = _fitted(values, np.array([float(value) for row in right for value in row]))
    best = [
        max(float(np.dot(sentences["weights"], s.values)) + sentences["offset"] for s in found)
        for found in seen
        if found
    ]
    answerable = np.array([bool(one.answers) for one, found in zip(asked, seen, strict=True) if found])
    passages = _fitted(np.array(best)[:, None], answerable.astype(np.float64))
    odds = np.array(best) * passages["weights"][0] + passages["offset"]
    threshold = float(np.quantile(1 / (1 + np.exp(-odds[answerable])), SILENT))
    return {"sentences": sentences, "passages": passages, "threshold": threshold}


def _fitted(values: Numbers, right: Numbers) -> dict[str, Any]:
    weights, offset = fit_logistic(values, right)
    return {"weights": weights, "offset": offset}


def _judge_facts(model: TrainedPairs, held: Sequence[JudgeRow]) -> dict[str, object]:
    """Claims of one part only: of a long one that is not supported nobody knows which part is not.

    What the model says and the share of words are weighed by claims of people. ``long``, for evidence that is not read
    as a whole, by what dialogue systems said (BEGIN): people called it unsupported for what it adds, as they do where
    much evidence is given, while FEVER's false claims differ in a word, so that shared words say little of them; no
    file has long evidence of that kind. What a swapped word then adds is told by all rows, made ones too.
    """
    found = TrainedJudge(model).signs([(row.claim, row.evidence) for row in held])
    whole = [(signs[0], row) for signs, row in zip(found, held, strict=True) if len(signs) == 1]
    said = [(signs, row) for signs, row in whole if row.source.startswith(_CLAIMED)]
    supported = _supported(said)
    long = _supported([(signs, row) for signs, row in said if row.source == "begin_wow"] or said)
    signs = np.array([signs for signs, _ in whole])
    odds = signs[:, :2] @ np.array(supported["weights"]) + supported["offset"]
    swapped = fit_slope(odds, signs[:, 2], np.array([float(row.supported) for _, row in whole]))
    for fitted in (supported, long):
        fitted["weights"].append(swapped)
    return {"supported": supported, "long": long, "held_rows": len(whole)}


def _supported(rows: Sequence[tuple[Numbers, JudgeRow]]) -> dict[str, Any]:
    right = np.array([float(row.supported) for _, row in rows])
    return _fitted(np.array([signs[:2] for signs, _ in rows]), right)
