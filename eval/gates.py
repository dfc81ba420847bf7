"""Gates: what a run must reach to pass, in a small TOML file, and which of them it does not reach, and why.

    [[gate]]
    metric = "correctness"      # a name of `eval.figures`: of a score, a rate, seconds, or the state of the service
    minimum = 0.8               # or maximum, for rates and seconds
    maximum_drop = 0.02         # how much worse than the last run it may be, on the same questions
    significance = 0.05         # p value, corrected for many, up to which that counts
    collection = "handbook"     # of the questions about it alone
    tag = "travel"              # of those with this tag alone
    source = "generated"        # golden, traffic or generated; golden, if it is not said

Without a file a run passes unless a headline score dropped for certain. Knows figures and no page.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eval.figures import HEADLINES, LAST_RUN, RATES, SCORED, SECONDS, SERVICE, flat
from eval.runs import SIGNIFICANCE, Change, Run, Scope, Source, Verdict
from eval.scored import LOWER_IS_BETTER
from rag.errors import BadInput


class Gate(BaseModel):
    """What one metric must reach. A drop is compared with the last run; one that may be chance does not count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    minimum: float | None = None
    maximum: float | None = None
    maximum_drop: float | None = Field(None, ge=0)
    significance: float = Field(SIGNIFICANCE, gt=0, le=1)
    source: Source | None = None
    collection: str | None = None
    tag: str | None = None

    @property
    def scope(self) -> Scope:
        """The questions that it speaks of; scores are of golden ones anyway, if no source is named."""
        usual = self.source is Source.GOLDEN and self.metric in SCORED
        return Scope(None if usual else self.source, self.collection, self.tag)

    @model_validator(mode="after")
    def _says_something(self) -> Gate:
        if self.minimum is None and self.maximum is None and self.maximum_drop is None:
            raise ValueError("a gate needs minimum, maximum or maximum_drop")
        if self.metric not in (*SCORED, *RATES, *SECONDS, *SERVICE):
            raise ValueError(f"there is no metric {self.metric!r}; there are {', '.join((*SCORED, *RATES, *SERVICE))}, "
                             "and seconds_end_p95 and the like")  # fmt: skip
        if self.metric in SERVICE and self.scope != Scope():
            raise ValueError(f"{self.metric} is of the whole service, and of no source, collection or tag")
        if self.source is Source.FOLDER:
            raise ValueError("the questions of a folder are asked by `citewell eval`, and by no report")
        if self.maximum_drop is not None and self.metric not in SCORED:
            raise ValueError(f"maximum_drop compares questions one by one, which {self.metric} is not of; use maximum")
        if self.maximum_drop is not None and self.source is Source.TRAFFIC:
            raise ValueError("maximum_drop compares equal questions, and traffic has others each night; use minimum")
        return self


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: list[Gate] = Field(min_length=1)


#: No headline score may drop for certain, by however little.
DEFAULT = tuple(Gate(metric=name, maximum_drop=0.0) for name in HEADLINES)


def read_gates(file: Path) -> tuple[Gate, ...]:
    """Return the gates of a file; raises `BadInput` with what is wrong in it."""
    try:
        found = _File.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInput(f"The file of gates {file} can not be read: {error.strerror}.") from error
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise BadInput(f"The file of gates {file} is not valid: {wrong}.") from error
    except ValueError as error:  # no TOML, or no text
        raise BadInput(f"The file of gates {file} is no TOML: {error}.") from error
    return tuple(found.gate)


def compared(gates: Sequence[Gate] | None) -> list[tuple[str, Scope]]:
    """Return what gates want to have compared with the last run, beside the headline scores."""
    return [(gate.metric, gate.scope) for gate in gates or () if gate.maximum_drop is not None]


def judged(gates: Sequence[Gate] | None, run: Run, moved: Sequence[Change]) -> Verdict:
    """Return whether a run with its changes passes the ``gates``, those of `DEFAULT` if none are given.

    A metric of the file that a run has not does not pass: what is not measured must not look good.
    """
    chosen = DEFAULT if gates is None else gates
    last = {(change.metric, change.scope): change for change in moved if change.versus == LAST_RUN}
    reasons = [
        why
        for gate in chosen
        for why in _reasons(gate, run, last.get((gate.metric, gate.scope)), asked_for=gates is not None)
    ]
    return Verdict(not reasons, tuple(reasons), tuple(map(_plain, chosen)))


def _plain(gate: Gate) -> dict[str, Any]:
    return gate.model_dump(mode="json", exclude_none=True)


def _reasons(gate: Gate, run: Run, change: Change | None, *, asked_for: bool) -> list[str]:
    value = flat(run, gate.scope).get(gate.metric)
    name = f"{gate.metric}{gate.scope}"
    if value is None:
        return [f"{name} could not be measured."] if asked_for else []
    reasons = []
    if gate.minimum is not None and value < gate.minimum:
        reasons.append(f"{name} is {value:.4g}, below the minimum of {gate.minimum:g}.")
    if gate.maximum is not None and value > gate.maximum:
        reasons.append(f"{name} is {value:.4g}, above the maximum of {gate.maximum:g}.")
    if gate.maximum_drop is not None and change is not None:
        lower = gate.metric in LOWER_IS_BETTER
        worse = change.mean if lower else -change.mean
        if worse > gate.maximum_drop and change.p_value <= gate.significance:
            reasons.append(
                f"{name} {'rose' if lower else 'dropped'} by {worse:.4g} against the last run "
                f"(p {change.p_value:.2g}, {change.count} questions); at most {gate.maximum_drop:g} is allowed."
            )
    return reasons
