"""How much of a document its parse keeps: word recall against ground truth, and strings that must be found.

Let t(w) be how often the word w stands in the ground truth of a file, and p(w) how often in the text of all elements
that ``citewell parse FILE --json`` prints. Then

    word recall = sum over w of min(t(w), p(w)) / sum over w of t(w)

A word is a run of letters and digits after NFKC normalisation and case folding; signs and underscores only part words.
Of Markdown truth, comments, tags and the targets of links are left out and character references resolved; of CSV truth,
the cells are taken; plain text is taken as it is. The order of words, tables and headings is not judged.

A string of ``must_contain`` is found if it stands in that text, both NFKC normalised, in lower case, and every run of
white space one space. It is found in words if it is found, or its words stand there one after the other with other
signs between them. Nothing is found in a file that was not read; it counts all the same.
Knows the product by its command line only.
"""

from __future__ import annotations

import csv
import html
import json
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from eval.tables import ROOT, Table
from rag.errors import BadInput

_WORD = re.compile(r"[^\W_]+")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_LINK_TARGET = re.compile(r"\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*(?:\s+\"[^\"]*\")?\)")
READ, REFUSED = 0, 2
SECONDS = 900
MISSING_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Sample:
    """A file of a manifest: its truth if it has one, and ``expected``, what shall become of it, in words."""

    path: Path
    format: str
    truth: Path | None
    must_contain: tuple[str, ...]
    expected: str

    @property
    def may_be_read(self) -> bool:
        return not self.expected.startswith("reject")

    @property
    def may_be_refused(self) -> bool:
        return "reject" in self.expected


@dataclass(frozen=True, slots=True)
class Reading:
    """What the command said of a file: the ``text`` of its elements, or why there is none (``said``)."""

    status: int
    text: str
    said: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """How a file fared. ``found`` and ``in_words`` are one a string.

    ``recall`` is None without truth; ``missing`` are words of the truth that are not there, most missed first.
    """

    sample: Sample
    reading: Reading
    recall: float | None
    missing: tuple[str, ...]
    found: tuple[bool, ...]
    in_words: tuple[bool, ...]


def measure(folder: Path, at_once: int = 2) -> list[Score]:
    """Parse every file that ``folder``'s manifest.csv names, and score it. Raises `BadInput` without a manifest."""
    samples = read_manifest(folder)
    with ThreadPoolExecutor(at_once) as threads:
        readings = threads.map(lambda sample: read(sample.path), samples)
        return [score(sample, reading) for sample, reading in zip(samples, readings, strict=True)]


def read_manifest(folder: Path) -> list[Sample]:
    """Return what manifest.csv says: its columns file, format, ground_truth, must_contain and expected."""
    file = folder / "manifest.csv"
    if not file.is_file():
        raise BadInput(f"{folder} has no manifest.csv, which says what its documents hold.")
    with file.open(encoding="utf-8", newline="") as stream:
        return [
            Sample(
                folder / row["file"],
                row["format"],
                folder / row["ground_truth"] if row["ground_truth"] else None,
                tuple(row["must_contain"].split(" || ")) if row["must_contain"] else (),
                row["expected"],
            )
            for row in csv.DictReader(stream)
        ]


def read(path: Path) -> Reading:
    """Return what ``citewell parse`` makes of a file."""
    command = [sys.executable, "-m", "api.cli", "parse", str(path.resolve()), "--json"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Reading(-1, "", f"It was not done after {SECONDS} seconds.")
    said = done.stderr.strip().removeprefix("citewell: ")
    if done.returncode != READ:
        return Reading(done.returncode, "", said)
    elements = json.loads(done.stdout)["elements"]
    return Reading(READ, "\n\n".join(element["text"] for element in elements), said)


def score(sample: Sample, reading: Reading) -> Score:
    """Compare a reading with what is known of the file."""
    text, words = plain(reading.text), words_of(reading.text)
    truth = truth_words(sample.truth) if sample.truth else []
    found = tuple(plain(string) in text for string in sample.must_contain)
    spaced = f" {' '.join(words)} "
    in_words = (f" {' '.join(words_of(string))} " in spaced for string in sample.must_contain)
    return Score(
        sample,
        reading,
        word_recall(truth, words) if sample.truth else None,
        tuple(word for word, _ in (Counter(truth) - Counter(words)).most_common()),
        found,
        tuple(strict or loose for strict, loose in zip(found, in_words, strict=True)),
    )


def word_recall(truth: Sequence[str], parsed: Sequence[str]) -> float:
    """Return the share of the words of ``truth``, each as often as it comes, that ``parsed`` has; 1 without words."""
    kept = Counter(truth) & Counter(parsed)
    return kept.total() / len(truth) if truth else 1.0


def truth_words(file: Path) -> list[str]:
    """Return the words of a ground-truth file, reduced by its ending as the module says."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".csv":
        text = "\n".join(cell for row in csv.reader(text.splitlines()) for cell in row)
    elif file.suffix in {".md", ".html"}:
        text = html.unescape(_TAG.sub(" ", _LINK_TARGET.sub("] ", _COMMENT.sub(" ", text))))
    return words_of(text)


def words_of(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def plain(text: str) -> str:
    """Return ``text`` as it is compared: NFKC, lower case, one space between words."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def fault(score: Score) -> str | None:
    """Return what is wrong with how a file fared, in a few words, or None if it is as expected."""
    sample, reading = score.sample, score.reading
    if reading.status == REFUSED:
        wrong = "" if sample.may_be_refused else f"refused: {reading.said}"
        return wrong or ("refused with more than a sentence" if "\n" in reading.said else None)
    if reading.status != READ:
        return f"exit status {reading.status}: {reading.said[-200:]}"
    if not sample.may_be_read:
        return f"read, but expected: {sample.expected}"
    lost = [
        f"{string!r}{' (in words only)' if in_words else ''}"
        for string, found, in_words in zip(sample.must_contain, score.found, score.in_words, strict=True)
        if not found
    ]
    return f"not found: {', '.join(lost)}" if lost else None


def by_format(scores: Sequence[Score]) -> Table:
    """Return a row for each format, the commonest first, and one for all of them."""
    rows = [
        ["format", "files", "read", "as expected", "with truth", "word recall", "lowest", "must_contain", "in words"]
    ]
    counts = Counter(score.sample.format for score in scores)
    for name in [*sorted(counts, key=lambda name: (-counts[name], name)), "all"]:
        group = [score for score in scores if name in {score.sample.format, "all"}]
        recalls = [score.recall for score in group if score.recall is not None]
        found = [found for score in group for found in score.found]
        in_words = [found for score in group for found in score.in_words]
        rows.append(
            [
                name,
                str(len(group)),
                str(sum(score.reading.status == READ for score in group)),
                str(sum(_as_expected(score) for score in group)),
                str(len(recalls)),
                f"{mean(recalls):.3f}" if recalls else "",
                f"{min(recalls):.3f}" if recalls else "",
                f"{sum(found)}/{len(found)}",
                f"{sum(in_words)}/{len(in_words)}",
            ]
        )
    return rows


def faults(scores: Sequence[Score], least_recall: float = 0.95) -> Table:
    """Return every file that is not as expected, or whose recall is below ``least_recall``, and what is wrong."""
    rows = [["file", "word recall", "what is wrong"]]
    for score in scores:
        wrong = fault(score) or ""
        if score.recall is not None and score.recall < least_recall and score.reading.status == READ:
            wrong = "; ".join(filter(None, [wrong, f"missing words: {', '.join(score.missing[:MISSING_SHOWN])}"]))
        if wrong:
            recall = "" if score.recall is None else f"{score.recall:.3f}"
            rows.append([score.sample.path.name, recall, wrong.replace("|", "¦")])
    return rows


def _as_expected(score: Score) -> bool:
    return (
        score.sample.may_be_read
        if score.reading.status == READ
        else (score.reading.status == REFUSED and score.sample.may_be_refused)
    )
