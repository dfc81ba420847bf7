"""How well a judge of the suite agrees with people: labelled rows, each taken for an answer and scored as one.

So a language model is measured in the work that it does for a report: it takes the answer apart and judges each
statement. A row counts as supported where all of its statements are. Knows no model and no formula.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from eval.folders import Progress
from eval.judges import SuiteJudge
from eval.judging import Agreement, Labelled
from eval.scored import Sample, Scored, ScoreFiles
from eval.suite import score_all
from rag.errors import Unavailable
from rag.settings import ScoringSettings

#: What the rows do not tell: the question that they answer.
QUESTION = "What does the source say?"
#: The share of supported statements from which all of a row is.
ALL = 1.0


def score_rows(
    judge: SuiteJudge,
    rows: Sequence[Labelled],
    settings: ScoringSettings,
    *,
    files: ScoreFiles | None = None,
    scored: Progress | None = None,
) -> tuple[Agreement, Scored]:
    """Return how ``judge`` scored the rows that it could score, and all its scores; the others count as failed.

    Raises `Unavailable` if it scored none.
    """
    samples = [Sample(str(number), QUESTION, row.claim, (row.evidence,)) for number, row in enumerate(rows)]
    start = time.perf_counter()
    found = score_all(samples, judge, settings, metrics=("faithfulness",), files=files, scored=scored)
    seconds = time.perf_counter() - start
    values = found.values("faithfulness")
    if not values:
        raise Unavailable(f"The judge scored none of {len(rows)} rows: {found.unscored[0].why}")
    labels = np.array([row.supported for row, sample in zip(rows, samples, strict=True) if sample.id in values])
    scores = np.array([values[sample.id] for sample in samples if sample.id in values])
    return Agreement(scores, labels, seconds, ALL, failed=len(rows) - len(values)), found
