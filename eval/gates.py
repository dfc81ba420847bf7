"""Gates: what a run must reach to pass, in a small TOML file, and which of them it does not reach, and why.

    [[gate]]
    metric = "correctness"      # a name that `eval.figures.flat` knows
    minimum = 0.8               # or maximum, for rates and seconds
    maximum_drop = 0.02         # against the last run, on the same questions
    significance = 0.05         # p value, corrected for many, up to which a drop counts

Without a file a run passes unless a headline score dropped for certain. Knows figures and no page.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eval.figures import HEADLINES, LAST_RUN, SIGNIFICANCE, Change
from rag.errors import BadInput


class Gate(BaseModel):
    """What one metric must reach. A drop is compared with the last run; one that may be chance does not count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    minimum: float | None = None
    maximum: float | None = None
    maximum_drop: float | None = Field(None, ge=0)
    significance: float = Field(SIGNIFICANCE, gt=0, le=1)

    @model_validator(mode="after")
    def _says_something(self) -> Gate:
        if self.minimum is None and self.maximum is None and self.maximum_drop is None:
            raise ValueError("a gate needs minimum, maximum or maximum_drop")
        return self


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: list[Gate] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a run passes; ``reasons`` has a sentence for each gate that it does not pass."""

    passed: bool
    reasons: tuple[str, ...] = ()
    gates: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as one object."""
        return {"passed": self.passed, "reasons": list(self.reasons), "gates": self.gates}


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


def judged(gates: Sequence[Gate] | None, found: Mapping[str, float], moved: Sequence[Change]) -> Verdict:
    """Return whether figures and changes pass the ``gates``, those of `DEFAULT` if none are given.

    A metric of the file that a run has not does not pass: what is not measured must not look good.
    """
    chosen = DEFAULT if gates is None else gates
    last = {change.metric: change for change in moved if change.versus == LAST_RUN}
    reasons = [
        why for gate in chosen for why in _reasons(gate, found, last.get(gate.metric), asked_for=gates is not None)
    ]
    return Verdict(not reasons, tuple(reasons), len(chosen))


def _reasons(gate: Gate, found: Mapping[str, float], change: Change | None, *, asked_for: bool) -> list[str]:
    value = found.get(gate.metric)
    if value is None:
        return [f"{gate.metric} could not be measured."] if asked_for else []
    reasons = []
    if gate.minimum is not None and value < gate.minimum:
        reasons.append(f"{gate.metric} is {value:.4g}, below the minimum of {gate.minimum:g}.")
    if gate.maximum is not None and value > gate.maximum:
        reasons.append(f"{gate.metric} is {value:.4g}, above the maximum of {gate.maximum:g}.")
    if gate.maximum_drop is not None and change is not None:
        dropped = -change.mean
        if dropped > gate.maximum_drop and change.p_value <= gate.significance:
            reasons.append(
                f"{gate.metric} dropped by {dropped:.4g} against the last run (p {change.p_value:.2g}, "
                f"{change.count} questions); at most {gate.maximum_drop:g} is allowed."
            )
    return reasons
