"""Queries of a language model as JSON: the schema that its reply is held to, and how such a reply is read.

Servers without a guided backend ignore the schema and say nothing, so that a reply is JSON only where it proves to be.
Knows the names of things alone: what a query is for, and what becomes of it, is `rag.understanding`'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

#: A code fence around the whole reply, as chat models like to write one.
_FENCE = re.compile(r"\A```\w*\s*\n(.*)\n\s*```\Z", re.DOTALL)


def schema_of(names: Sequence[str], several: frozenset[str]) -> dict[str, Any]:
    """Return the JSON schema of an object that has each of ``names``: a text, or a list of texts where ``several``."""
    text = {"type": "string"}
    return {
        "type": "object",
        "properties": {name: {"type": "array", "items": text} if name in several else text for name in names},
        "required": [*names],
        "additionalProperties": False,
    }


def read_object(reply: str, names: Sequence[str], several: frozenset[str]) -> dict[str, list[str]] | None:
    """Return the texts under each of ``names`` that a reply holds; None if it is no object of `schema_of`.

    The object may stand in a code fence. One without some of the names, or with others too, is still one.
    """
    fenced = _FENCE.match(reply.strip())
    try:
        found = json.loads(fenced[1] if fenced else reply)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, Mapping):
        return None
    texts = {name: _texts(found[name], is_list=name in several) if name in found else [] for name in names}
    whole = {name: values for name, values in texts.items() if values is not None}
    return whole if len(whole) == len(texts) and found.keys() & texts.keys() else None


def _texts(value: object, *, is_list: bool) -> list[str] | None:
    values = value if is_list else [value]
    return values if isinstance(values, list) and all(isinstance(text, str) for text in values) else None


def write_object(texts: Mapping[str, Sequence[str]], several: frozenset[str]) -> str:
    """Return an object as `read_object` reads it, for an example that shows a model what is meant."""
    found = {name: list(values) if name in several else values[0] for name, values in texts.items()}
    return json.dumps(found, ensure_ascii=False, indent=1)
