"""Reads a Dockerfile: its stages, and what each of their instructions says once arguments are put in.

Understands as much as our own one needs: FROM, ARG, ENV, COPY, RUN, WORKDIR, USER and what only says how to run.
Runs nothing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One instruction of a stage, and what follows it."""

    name: str
    words: str


@dataclass(frozen=True)
class Stage:
    """A stage: its name, the image or stage that it begins with, and its steps."""

    name: str
    parent: str
    steps: list[Step] = field(default_factory=list)


def read_stages(file: Path, arguments: Mapping[str, str] | None = None) -> dict[str, Stage]:
    """Return the stages of a Dockerfile by name; ``arguments`` are those in front of the first FROM."""
    known: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    for step in _steps(file.read_text()):
        if step.name == "FROM":
            parent, _, name = re.fullmatch(r"(\S+)(\s+AS\s+(\S+))?", step.words, re.IGNORECASE).groups()
            stages[name] = Stage(name, expanded(parent, known))
        elif stages:
            [*stages.values()][-1].steps.append(step)
        else:
            assert step.name == "ARG", step
            name, _, default = step.words.partition("=")
            known[name] = (arguments or {}).get(name, default)
    return stages


def chain(stages: Mapping[str, Stage], name: str) -> list[Stage]:
    """Return the stages that a stage is built on, itself last."""
    stage = stages[name]
    return [*(chain(stages, stage.parent) if stage.parent in stages else []), stage]


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Put variables in: $NAME, ${NAME}, ${NAME:-default}."""

    def value(found: re.Match[str]) -> str:
        return variables.get(found[1] or found[2], "") or (found[3] or "")

    return re.sub(r"\$(?:(\w+)|\{(\w+)(?::-([^}]*))?\})", value, text)


def pairs(words: str) -> dict[str, str]:
    """Return what an ENV instruction sets."""
    return {name: value for name, _, value in (word.partition("=") for word in shlex.split(words))}


def _steps(text: str) -> list[Step]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [
        Step(name.upper(), words.strip()) for name, _, words in (s.strip().partition(" ") for s in joined.split("\n"))
    ]
