"""Passages for tests, from as little as a text."""

from __future__ import annotations

from rag.records import Kind, Passage


def passage(text: str, number: int = 1, **changes: object) -> Passage:
    facts: dict[str, object] = {
        "chunk_id": f"chunk{number}", "seq": number, "collection_id": "c", "document_id": f"doc{number}",
        "document": f"file{number}.txt", "title": None, "version_id": f"version{number}", "version": 1, "text": text,
        "context": "", "start": 0, "end": len(text), "kind": Kind.TEXT, "page": None, "section": (),
    }  # fmt: skip
    return Passage(**{**facts, **changes})  # type: ignore[arg-type]
