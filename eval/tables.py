"""How benchmarks tell what they found: Markdown tables with hardware and commit, printed and kept in the lab log.

Knows nothing of what is measured.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOG = ROOT / "eval" / "LOG.md"
Table = list[list[str]]


def hardware() -> str:
    """Return processor, cores and memory in a few words."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"


def commit() -> str:
    """Return the commit that is measured, marked if the working tree differs from it."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def report(title: str, table: Table | None = None, log: Path = LOG) -> None:
    """Print a title and its table, and append both to the log if that file is there."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))] if table else []
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in table or []
    ]
    if table:
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    text = "\n".join([f"{'###' if table else '##'} {title}", "", *lines, ""])
    print(text, flush=True)  # noqa: T201
    if log.is_file():
        with log.open("a", encoding="utf-8") as out:
            out.write("\n" + text)
