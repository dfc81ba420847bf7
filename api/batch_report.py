"""What became of every file of a batch: its outcome in one word, and the report as CSV or JSON, page by page.

Names and errors come from strangers, and a CSV file is opened in a spreadsheet: a cell that would be a formula
there is made plain text (OWASP, "CSV Injection"). Knows no door: both write the same reports.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from api.batch_progress import batch_facts, pace_of
from rag.catalog import Accepted, Catalog
from rag.records import REFUSED, Batch, BatchFile, State

Format = Literal["csv", "json"]
MEDIA_TYPES: Mapping[Format, str] = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
#: The fields of a file in a report, in the order of the columns.
FIELDS = (
    "number", "name", "outcome", "state", "stage", "progress", "error_code", "error", "document_id", "version_id",
    "version", "sha256", "size", "media_type", "language", "pages", "passages", "attempts", "not_before", "ended_at",
)  # fmt: skip
_PAGE = 1000
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_OVERTAKEN = "It was deleted, or replaced by a newer content, while it waited or was being read."


class Outcome(StrEnum):
    """What became of a file. ``RESUMED``: it was accepted by an earlier run that did not finish it."""

    ADDED = "added"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    RETRIED = "retried"
    RESUMED = "resumed"
    FAILED = "failed"
    PURGED = "purged"


def outcome_of(file: BatchFile, batch: Batch) -> Outcome:
    """Return what became of a file; of one that has not ended, what will have if all goes well."""
    version = file.version
    if version is None:
        return Outcome.FAILED if file.outcome == REFUSED else Outcome.PURGED
    if version.state in {State.FAILED, State.RETIRED}:
        return Outcome.FAILED
    if file.outcome == Accepted.UNCHANGED:
        was_waiting = version.state is not State.READY or (version.ended_at or batch.created_at) > batch.created_at
        return Outcome.RESUMED if was_waiting else Outcome.UNCHANGED
    return Outcome(file.outcome)


def error_of(file: BatchFile) -> str | None:
    """Return in a sentence why a file is not searchable, or was not at the last try."""
    if file.version is not None and file.version.state is State.RETIRED:
        return _OVERTAKEN
    return file.error


def each_file_of(catalog: Catalog, batch_id: str) -> Iterator[BatchFile]:
    """Yield every file of a batch, page by page."""
    after = -1
    while page := catalog.batch_files(batch_id, after=after, limit=_PAGE):
        yield from page
        after = page[-1].number


def file_facts(file: BatchFile, batch: Batch) -> dict[str, Any]:
    """Return what is known of a file of a batch as plain values under the names of `FIELDS`."""
    facts: dict[str, Any] = {
        "number": file.number,
        "name": file.name,
        "outcome": str(outcome_of(file, batch)),
        "error_code": file.error_code,
        "error": error_of(file),
    }
    version = file.version
    if version is not None:
        facts |= {name: getattr(version, name) for name in FIELDS if name not in facts and hasattr(version, name)}
        facts |= {"version_id": version.id, "version": version.number}
        facts |= {"state": str(version.state), "stage": str(version.stage)}
    return {name: facts.get(name) for name in FIELDS}


def report_of(catalog: Catalog, batch: Batch, form: Format) -> Iterator[str]:
    """Yield the report of a batch piece by piece: every file with its outcome, in the order in which they came."""
    files = (file_facts(file, batch) for file in each_file_of(catalog, batch.id))
    if form == "csv":
        return _csv(files)
    return as_json_object({"batch": batch_facts(batch, pace_of(catalog, batch))}, "files", files)


def _csv(files: Iterator[dict[str, Any]]) -> Iterator[str]:
    page = io.StringIO()
    writer = csv.writer(page)
    writer.writerow(FIELDS)
    for count, facts in enumerate(files, 1):
        writer.writerow([_cell(facts[name]) for name in FIELDS])
        if count % _PAGE == 0:
            yield page.getvalue()
            page.seek(0)
            page.truncate()
    yield page.getvalue()


def _cell(value: Any) -> str:
    """Return a value as a cell that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    begin = text.lstrip(" ")[:1]
    is_formula = begin.startswith(_FORMULA) or (begin != "" and unicodedata.category(begin) == "Cc")
    return f"'{text}" if isinstance(value, str) and is_formula else text


def as_json_object(head: Mapping[str, Any], name: str, items: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a JSON object piece by piece: ``head``, and a list of ``items`` under ``name`` that is never held whole."""
    opened = json.dumps(head, indent=2, default=plain).removesuffix("}").rstrip()
    yield f"{opened}{',' if head else ''}\n  {json.dumps(name)}: ["
    before = ""
    for item in items:
        yield f"{before}\n    {json.dumps(item, default=plain)}"
        before = ","
    yield "\n  ]\n}\n"


def plain(value: Any) -> Any:
    """Return the JSON form of a value that `json` does not know, which is a moment."""
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")
