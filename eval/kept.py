"""Evaluations of folders in BEIR layout as runs, to be kept beside the nightly ones and compared like them.

Each question counts once, whatever it has of citations or claims. Knows what `eval.ranking` and `eval.answering`
measured, and no catalog.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from eval.answer_metrics import each
from eval.answering import Evaluation
from eval.ranking import Measured
from eval.runs import Asked, Request, Run, Scores, Source
from rag.records import digest
from rag.settings import Settings


def run_of_ranking(settings: Settings, folder: Path, label: str, measured: Measured, started_at: datetime) -> Run:
    """Return what was measured of the ranking of a folder's questions as a run."""
    names = [*measured.run]  # in the order of the questions, like the numbers
    values = [{metric: float(each[place]) for metric, each in measured.values.items()} for place in range(len(names))]
    asked = [_asked(folder, name, found) for name, found in zip(names, values, strict=True)]
    return _run(settings, folder, "retrieval", label, asked, started_at, ("none", "none"))


def run_of_answers(settings: Settings, folder: Path, label: str, found: Evaluation, started_at: datetime) -> Run:
    """Return what was measured of the answers to a folder's questions as a run."""
    asked = []
    for one, scores in zip(found.answered, each(found.answered), strict=True):
        said = one.said
        seconds = {"first": said.first, "last": said.last, "end": said.whole}
        fallen_back = said.generator != found.generator
        row = _asked(folder, one.known.id, scores, seconds=seconds, abstained=said.abstained, fallen_back=fallen_back)
        asked.append(row)
    return _run(settings, folder, "answers", label, asked, started_at, (found.generator, found.judge))


def _asked(
    folder: Path,
    name: str,
    values: Mapping[str, float],
    *,
    seconds: Mapping[str, float] | None = None,
    abstained: bool = False,
    fallen_back: bool = False,
) -> Asked:
    scores = Scores({metric: round(value, 6) for metric, value in values.items()})
    where = folder.resolve().name
    return Asked(
        digest(where, name), name, Source.FOLDER, where, scores=scores, seconds=seconds or {}, abstained=abstained,
        fallen_back=fallen_back,
    )  # fmt: skip


def _run(
    settings: Settings,
    folder: Path,
    what: str,
    label: str,
    asked: Sequence[Asked],
    started_at: datetime,
    parts: tuple[str, str],
) -> Run:
    request = Request(label=label, folder=f"{what} on {folder.resolve().name}")
    return Run("", started_at, datetime.now(started_at.tzinfo), request, settings.digest(), *parts, tuple(asked))
