"""The benchmark of the report: ``make bench-report DATA=folder``, where folder holds a squad/ in BEIR layout.

As users do it, by the commands: articles are ingested, questions become golden ones, and the report is made with all
default settings, twice, as on two nights. Prints a table of how long each night took and what it found, and appends it
to ``eval/LOG.md`` when that file is there. Knows no metric.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from eval.answer_metrics import Known
from eval.answering import choose, read_known
from eval.folders import read_relevant, read_rows
from eval.processes import start
from eval.tables import LOG, Table, commit, hardware, report

COLLECTION = "bench"


@dataclass(frozen=True, slots=True)
class Night:
    """A report as JSON, and how many seconds its command took: on the clock, and of processors."""

    seconds: float
    processor: float
    told: Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill a data folder, make the report twice, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with squad/ in BEIR layout")
    parser.add_argument("--questions", type=int, default=200, help="golden questions, always the same ones")
    parser.add_argument("--log", type=Path, default=LOG, help="what the table is appended to, if it is there")
    options = parser.parse_args(arguments)
    folder = options.data / "squad"
    if not folder.is_dir():
        parser.error(f"{options.data} has no squad.")
    tell = partial(report, log=options.log)
    with tempfile.TemporaryDirectory() as made:
        fill(Path(made), folder, options.questions)
        nights = [night(Path(made) / "data") for _ in range(2)]
    tell(f"Benchmark of the report of {datetime.now(UTC):%Y-%m-%d}, commit {commit()}, {hardware()}")
    passages = nights[0].told["service"]["passages"]
    title = f"{options.questions} golden and 20 generated questions over {passages:,} passages, all scores of the suite"
    tell(title, table_of(nights))


def fill(made: Path, folder: Path, count: int) -> None:
    """Ingest the articles of a folder, each as a document, and add ``count`` of its questions as golden ones."""
    articles: dict[str, list[str]] = {}
    article_of = {}
    for row in read_rows(folder, "corpus"):
        name = f"{re.sub(r'[^A-Za-z0-9]+', '-', row['title']).strip('-')}.md"
        articles.setdefault(name, [f"# {row['title']}"]).append(row["text"])
        article_of[str(row["_id"])] = name
    (made / "articles").mkdir()
    for name, paragraphs in articles.items():
        (made / "articles" / name).write_text("\n\n".join(paragraphs), encoding="utf-8")
    relevant = read_relevant(folder)
    golden = [_golden(known, [article_of[key] for key in relevant.get(known.id, ())])
              for known in choose(read_known(folder), count)]  # fmt: skip
    (made / "golden.jsonl").write_text("".join(json.dumps(row) + "\n" for row in golden), encoding="utf-8")
    _run("ingest", made / "articles", "--collection", COLLECTION, "--data", made / "data")
    _run("golden", "add", made / "golden.jsonl", "--collection", COLLECTION, "--data", made / "data")


def _golden(known: Known, documents: Sequence[str]) -> dict[str, Any]:
    if not known.answerable:
        return {"question": known.text, "answerable": False, "tags": ["unanswerable"]}
    return {"question": known.text, "answer": known.answers[0], "documents": sorted(set(documents))}


def night(data: Path) -> Night:
    """Make a report by its command."""
    began, used = time.perf_counter(), _used()
    told = json.loads(_run("report", "run", "--json", "--data", data, statuses=(0, 1)))
    return Night(time.perf_counter() - began, _used() - used, told)


def _used() -> float:
    """Return the seconds of processors that all ended processes of this one have used."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def _run(*arguments: str | Path, statuses: Sequence[int] = (0,)) -> str:
    """Run a command and return what it prints; ends the benchmark where it fails."""
    with start(*arguments, stderr=sys.stderr.fileno()) as process:
        out, _ = process.communicate()
    if process.returncode not in statuses:
        raise SystemExit(f"`citewell {' '.join(map(str, arguments))}` failed.")
    return out


def table_of(nights: Sequence[Night]) -> Table:
    """Return a row for each night: its seconds, those of processors and of answering, the verdict and the scores."""
    names = list(nights[0].told["headlines"])
    rows = [["night", "seconds", "of processors", "answering", "verdict", "not scored", *names]]
    for number, one in enumerate(nights, 1):
        told = one.told
        verdict = "passed" if told["verdict"]["passed"] else "failed"
        scores = [f"{told['headlines'][name]['value']:.3f}" for name in names]
        answering = f"{told['cost']['seconds_answering']:.1f}"
        times = f"{one.seconds:.1f}", f"{one.processor:.1f}", answering
        rows.append([str(number), *times, verdict, str(sum(told["unscored"].values())), *scores])
    return rows


if __name__ == "__main__":
    main()
