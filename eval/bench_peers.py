"""Citewell beside other systems in one run: the same passages, the same questions, the same weights of the embedder.

Each system is a process of its own, one after the other; a peer's Python is that of its own environment. What could not
be installed or fails is told in the table with the reason. Knows the systems by their adapters only (`eval.peers`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.folders import Question
from eval.ranking import score_each
from eval.statistics import compare, interval
from eval.tables import ROOT, Table

OURS = "citewell"
#: The peers that have an adapter and requirements.
PEERS = tuple(sorted(file.stem for file in (ROOT / "eval" / "peers").glob("*.txt")))
#: What keeps peers from looking for anything on the network.
OFFLINE = (
    "HF_HUB_OFFLINE=1",
    "TRANSFORMERS_OFFLINE=1",
    "HF_HUB_DISABLE_TELEMETRY=1",
    "DO_NOT_TRACK=1",
    "ANONYMIZED_TELEMETRY=False",
    "HAYSTACK_TELEMETRY_ENABLED=False",
)
SECONDS = 3600
INSTALL_LOG = "install.log"
_LONGEST_REASON = 120


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there are no figures of a system, in a few words."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What one system did: the ids it ranked for each question, and what that took."""

    name: str
    passages: int
    ingest_seconds: float
    ranked: dict[str, list[str]]
    milliseconds: list[float]
    peak_mib: float
    resident_mib: float

    @property
    def passages_per_second(self) -> float:
        return self.passages / self.ingest_seconds

    @property
    def questions_per_second(self) -> float:
        return 1000 * len(self.milliseconds) / sum(self.milliseconds)

    def ndcg(self, questions: Sequence[Question]) -> Any:
        """Return nDCG@10 of each question."""
        run = {question: [(passage, 0.0) for passage in found] for question, found in self.ranked.items()}
        return score_each(run, questions)["ndcg@10"]


def side_by_side(
    folder: Path, questions: Sequence[Question], environments: Path, names: Sequence[str] = PEERS
) -> Table:
    """Return a row for each system on the data set in ``folder``, the product first, then how it compares."""
    found = [run_system(sys.executable, OURS, folder)]
    for name in names:
        python = environments / name / "bin" / "python"
        found.append(run_system(str(python), name, folder) if python.is_file() else not_installed(environments, name))
    return table(found, questions)


def run_system(python: str, name: str, folder: Path, seconds: float = SECONDS) -> Figures | Failed:
    """Run the adapter ``name`` under an interpreter, without network for what obeys its settings."""
    command = ["env", *OFFLINE, python, "-m", f"eval.peers.{name}", str(folder)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return Failed(name, f"not done after {seconds:,.0f} s")
    if done.returncode:
        return Failed(name, _last_line(done.stderr) or f"status {done.returncode}")
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


def not_installed(environments: Path, name: str) -> Failed:
    """Return why there is no environment: what the log of its installation says, if one was tried."""
    log = environments / name / INSTALL_LOG
    if not log.is_file():
        return Failed(name, "not installed; run `make bench-peers`")
    errors = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("ERROR")]
    return Failed(name, errors[-1][:_LONGEST_REASON] if errors else "could not be installed; see its log")


def table(found: Sequence[Figures | Failed], questions: Sequence[Question]) -> Table:
    """Return the systems with nDCG@10, its interval, the p value against the first, and speed and memory."""
    head = ["system", "nDCG@10", "95 %", "p", "ingest, passages/s", "p50 ms", "p95 ms", "questions/s", "peak MiB"]
    rows = [[*head, "resident MiB"]]
    ours = found[0]
    for figures in found:
        if isinstance(figures, Failed):
            rows.append([figures.name, figures.reason, *[""] * (len(head) - 1)])
            continue
        values = figures.ndcg(questions)
        low, high = interval(values)
        against = compare(ours.ndcg(questions), values) if isinstance(ours, Figures) and figures is not ours else None
        p50, p95 = np.percentile(figures.milliseconds, [50, 95])
        rows.append([
            figures.name,
            f"{values.mean():.3f}",
            f"{low:.3f}-{high:.3f}",
            f"{against.p_value:.4f}" if against else "",
            f"{figures.passages_per_second:.0f}",
            f"{p50:.1f}",
            f"{p95:.1f}",
            f"{figures.questions_per_second:.0f}",
            f"{figures.peak_mib:,.0f}",
            f"{figures.resident_mib:,.0f}",
        ])  # fmt: skip
    return rows + comparison(found, questions, len(rows[0]))


def comparison(found: Sequence[Figures | Failed], questions: Sequence[Question], width: int) -> Table:
    """Return one row: the first system against the best of the others in each figure; none where one is missing."""
    ours, *others = found
    peers = [figures for figures in others if isinstance(figures, Figures)]
    if not (isinstance(ours, Figures) and peers):
        return []
    best = max(peer.ndcg(questions).mean() for peer in peers)
    ingest = max(peer.passages_per_second for peer in peers)
    speed = max(peer.questions_per_second for peer in peers)
    p50 = min(float(np.median(peer.milliseconds)) for peer in peers)
    row = {
        0: "Citewell against the best of the others",
        1: f"{ours.ndcg(questions).mean() - best:+.3f}",
        4: f"{ours.passages_per_second / ingest:.2f} x",
        5: f"{float(np.median(ours.milliseconds)) / p50:.2f} x",
        7: f"{ours.questions_per_second / speed:.2f} x",
        8: f"{ours.peak_mib / min(peer.peak_mib for peer in peers):.2f} x",
        9: f"{ours.resident_mib / min(peer.resident_mib for peer in peers):.2f} x",
    }
    return [[row.get(column, "") for column in range(width)]]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:_LONGEST_REASON] if lines else ""
