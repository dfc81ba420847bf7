"""What all adapters do alike: read a BEIR folder, time a peer over it, and print one JSON object as the last line.

Runs in the environment of the peer, so that it stands on the standard library alone. Knows no metric.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

#: How many passages are asked for, and questions asked before the clock runs.
TOP, WARM = 10, 10


@dataclass(frozen=True)
class Passage:
    """A row of the corpus. ``full_text`` is what every system embeds and indexes: the title above the text."""

    id: str
    title: str
    text: str

    @property
    def full_text(self) -> str:
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True)
class Peer:
    """A system whose model is loaded. ``ask`` returns the ids of the best passages, at most as many as it is told."""

    name: str
    ingest: Callable[[Sequence[Passage]], object]
    ask: Callable[[str, int], list[str]]


@dataclass(frozen=True)
class Place:
    """Where a peer finds the data set, and an empty folder for what it keeps on disk.

    What it enters on ``stack`` is closed at the end.
    """

    folder: Path
    scratch: Path
    stack: ExitStack


def main(open_peer: Callable[[Place], Peer]) -> None:
    """Measure the peer on the folder named on the command line, and print what was found."""
    folder = Path(sys.argv[1])
    passages = [Passage(row["_id"], row.get("title") or "", row["text"]) for row in _rows(folder / "corpus.jsonl")]
    questions = {row["_id"]: row["text"] for row in _rows(folder / "queries.jsonl")}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        peer = open_peer(Place(folder, Path(scratch), stack))
        start = time.perf_counter()
        peer.ingest(passages)
        ingest_seconds = time.perf_counter() - start
        for text in list(questions.values())[:WARM]:
            peer.ask(text, TOP)
        ranked, milliseconds = {}, []
        for question, text in questions.items():
            start = time.perf_counter()
            ranked[question] = peer.ask(text, TOP)
            milliseconds.append(1000 * (time.perf_counter() - start))
        found = {
            "name": peer.name,
            "passages": len(passages),
            "ingest_seconds": ingest_seconds,
            "ranked": ranked,
            "milliseconds": milliseconds,
            "peak_mib": _memory("VmHWM"),
            "resident_mib": _memory("VmRSS"),
        }
    sys.stdout.write("\n" + json.dumps(found) + "\n")


def _rows(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def _memory(field: str) -> float:
    """Return a field of Linux's /proc/self/status in MiB: VmRSS is what is resident, VmHWM the most that ever was."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) / 1024 if found else float("nan")
