"""What is said of a document from outside: any JSON object of modest size, whose top values can be filtered on.

Knows no door: the command line and the REST API take metadata in here alike. Raises `BadInput` with the place of what
is wrong, and never repeats a value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from api.schemas import MOST_EXACT, check_text
from rag.catalog.queue import check_metadata
from rag.errors import BadInput

#: Most bytes of one document's metadata as JSON, and how deep its objects and lists may lie in each other.
MOST_BYTES, DEEPEST = 65_536, 10


def read_metadata(text: str, called: str) -> dict[str, Any]:
    """Return the metadata that ``text`` holds as a JSON object; ``called`` is what the sender calls it."""
    value = _parse(text, called, "write for example '{\"year\": 2026}'")
    if not isinstance(value, dict):
        raise BadInput(f"{called} must be a JSON object, for example '{{\"year\": 2026}}'.")
    check_given(value, called)
    return value


def read_metadata_by_name(text: str, called: str) -> dict[str, dict[str, Any]]:
    """Return the metadata of several files, of which ``text`` holds one object, file name to object."""
    value = _parse(text, called, "send an object, file name to object")
    if not isinstance(value, dict) or not all(isinstance(given, dict) for given in value.values()):
        raise BadInput(f"{called} must be a JSON object, file name to object.")
    for name, given in value.items():
        _check(name, called, 0)
        check_given(given, f"{called} of {name[:100]!r}")
    return value


def check_given(value: Mapping[str, Any], called: str) -> None:
    """Raise `BadInput` for metadata that is too large, lies too deep, or holds what can not be kept exactly."""
    _check(value, called, 1)
    check_metadata(value)
    size = len(json.dumps(value, separators=(",", ":")))
    if size > MOST_BYTES:
        raise BadInput(f"{called}: it has {size:,} bytes; the limit is {MOST_BYTES:,}.")


def _parse(text: str, called: str, cure: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, json.JSONDecodeError) else "a number or its depth is out of bounds"
        raise BadInput(f"{called} is not JSON ({reason}); {cure}.") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _check(value: Any, place: str, depth: int) -> None:
    if depth > DEEPEST:
        raise BadInput(f"{place[:200]}: objects and lists may lie {DEEPEST} deep in each other, not more.")
    if isinstance(value, dict):
        for key, item in value.items():
            _check(key, place, 0)
            _check(item, f"{place}.{key[:100]}", depth + isinstance(item, dict | list))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check(item, f"{place}.{number}", depth + isinstance(item, dict | list))
    elif isinstance(value, str):
        _check_string(value, place)
    elif _is_number(value) and not _is_exact(value):
        raise BadInput(f"{place[:200]}: the number is too large to be kept exactly; send it as a string.")


def _check_string(value: str, place: str) -> None:
    try:
        check_text(value)
    except ValueError as error:
        raise BadInput(f"{place.encode('ascii', 'replace').decode()[:200]}: a text in it {error}.") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_exact(value: float) -> bool:
    return math.isfinite(value) if isinstance(value, float) else abs(value) <= MOST_EXACT
