"""The filter language: what a search may look at, in JSON; read, checked and given its meaning here.

    {"year": 2026, "language": "de"}                                  all of these are equal
    {"year": {"gte": 2024, "lt": 2026}, "tags": {"in": ["hr", "it"]}}
    {"or": [{"document": {"prefix": "2026/"}}, {"not": {"status": {"exists": true}}}]}

An object holds when all of its members hold. A member is ``and`` or ``or`` with a list of filters, ``not`` with a
filter, or a field with a value (equal) or with comparisons: ``eq``, ``ne``, ``lt``, ``lte``, ``gt``, ``gte``, ``in``,
``prefix``, ``exists``.

Fields are the names in `TEXTS`, `DATES` and `NUMBERS`, which Citewell itself knows of a passage and its document, and
any key of the metadata given at upload or found by the parser. ``title``, ``language``, ``media_type`` and ``pages``
look in both; ``metadata.kind`` is the key ``kind`` of the metadata alone.

- **Types** are boolean, number, text and date; only values of one type compare, so that ``1``, ``true`` and ``"1"``
  differ. Text compares by code point, case included. A string in ISO 8601 (``2026-01-31``,
  ``2026-01-31T09:30:00+02:00``) asks for a date, and compares as a point in time with what is one too; a day is its
  first moment, and no zone means UTC.
- **Lists**: a field that holds a list has each of its values, and a comparison holds if it does for one of them.
  Objects and lists inside of it are no values.
- **Missing**: a field that is not there, or null, satisfies no comparison, ``ne`` neither: that is "there, and none of
  its values equal". ``not`` is plain negation: ``{"not": {"year": 2026}}`` holds for what has no year.

`matches` says by plain Python what a filter means; the catalog asks a database the same, and a test compares them.
Knows no SQL and no door.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, Literal, TypeAlias

from rag.errors import BadInput
from rag.records import Kind

METADATA_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
#: Before the name of a field: look in the metadata alone, also where Citewell has a field of that name.
IN_METADATA = "metadata."
#: What Citewell itself knows, by type. Metadata of these names is reached with `IN_METADATA` ...
TEXTS = frozenset({"collection", "document", "document_id", "kind"})
NUMBERS = frozenset({"page"})
DATES = frozenset({"ingested_at"})
#: ... and metadata of these names counts as well.
SHARED = frozenset({"title", "language", "media_type", "pages"})
#: Of these, passages of one document have different values.
OF_PASSAGES = frozenset({"kind", "page"})

#: The bounds of one filter: how deep it goes, how many comparisons and values it has, how long a text in it is.
DEEPEST, MOST_CONDITIONS, MOST_VALUES, MOST_CHARS = 10, 200, 1000, 1000
#: Beyond this number not every database and every JSON reader tells two neighbours apart.
LARGEST = 2**53

_DAY = r"(?!0000)[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_ZONE = r" ?(Z|[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?)"
_TIME = rf"[T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]+)?)?({_ZONE})?"
#: What may be a date, once the day is known to be one of its month; Python and PostgreSQL read it alike.
ISO = rf"{_DAY}({_TIME})?"
_ISO = re.compile(ISO)
_CLOCK = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6})\d*)?)? ?(?:([+-])(\d\d):?(\d\d)?)?")


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time that was asked for, in microseconds since the beginning of the first of January of year 1, UTC.

    ``text`` is how it was written.
    """

    text: str
    microseconds: int


Value: TypeAlias = bool | float | str | Moment
Direction: TypeAlias = Literal["lt", "lte", "gt", "gte"]
#: What each direction is, of plain values and of SQL columns alike.
DIRECTIONS: Mapping[Direction, Callable[[Any, Any], Any]] = {
    "lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class And:
    """All of its parts hold; without any it holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of its parts holds at least."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Its part does not hold."""

    part: Filter


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is there and not null."""

    field: str


@dataclass(frozen=True, slots=True)
class Among:
    """A value of the field is equal to one of these."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """A value of the field is less or greater than this one, and of its type."""

    field: str
    direction: Direction
    value: float | str | Moment


@dataclass(frozen=True, slots=True)
class Prefix:
    """A text of the field begins with this one."""

    field: str
    text: str


Leaf: TypeAlias = Exists | Among | Order | Prefix
Filter: TypeAlias = And | Or | Not | Leaf


@dataclass(frozen=True, slots=True)
class Facts:
    """What a filter can ask of one passage; ``metadata`` is that of its document."""

    collection: str
    document: str
    document_id: str
    ingested_at: datetime
    kind: str
    page: int | None = None
    title: str | None = None
    language: str | None = None
    media_type: str | None = None
    pages: int | None = None
    metadata: Mapping[str, Any] | None = None


# -- what it means -------------------------------------------------------------------------------------------------


def matches(asked: Filter, facts: Facts) -> bool:
    """Say whether a passage passes the filter: the plain twin of what the catalog asks its database."""
    match asked:
        case And(parts):
            return all(matches(part, facts) for part in parts)
        case Or(parts):
            return any(matches(part, facts) for part in parts)
        case Not(part):
            return not matches(part, facts)
        case leaf:
            return holds(leaf, _found(leaf.field, facts))


def holds(leaf: Leaf, found: Sequence[object]) -> bool:
    """Say whether a comparison holds for a field in whose places these values (or lists of them) were found."""
    match leaf:
        case Exists():
            return any(value is not None for value in found)
        case Among(_, values):
            return any(_equal(value, asked) for value in _each(found) for asked in values)
        case Order(_, direction, asked):
            return any(_ordered(value, direction, asked) for value in _each(found))
        case Prefix(_, text):
            return any(isinstance(value, str) and value.startswith(text) for value in _each(found))


def metadata_key(field: str) -> str | None:
    """Return the key of the metadata that a field looks at, None if it looks at none."""
    if field in TEXTS | NUMBERS | DATES:
        return None
    return field[len(IN_METADATA) :] if field.startswith(IN_METADATA) and field != IN_METADATA else field


def fields_of(asked: Filter) -> Iterator[str]:
    """Yield the fields that a filter looks at."""
    match asked:
        case And(parts) | Or(parts):
            for part in parts:
                yield from fields_of(part)
        case Not(part):
            yield from fields_of(part)
        case leaf:
            yield leaf.field


def instant(text: object) -> int | None:
    """Return a date in ISO 8601 as microseconds, see `Moment`; None for what is no date.

    Times without a zone are UTC, a day is its first moment, and digits after the sixth of a second do not count.
    """
    if not isinstance(text, str) or not _ISO.fullmatch(text):
        return None
    try:
        days = date(int(text[:4]), int(text[5:7]), int(text[8:10])).toordinal() - 1
    except ValueError:  # the 31st of a month that has 30 days
        return None
    clock = _CLOCK.match(text, 11)
    if clock is None:
        return days * 86_400_000_000
    hour, minute, second, fraction, sign, zone_hours, zone_minutes = clock.groups(default="0")
    zone = int(zone_hours) * 60 + int(zone_minutes)
    minutes = (days * 24 + int(hour)) * 60 + int(minute) - (-zone if sign == "-" else zone)
    return (minutes * 60 + int(second)) * 1_000_000 + int(fraction.ljust(6, "0"))


def _found(field: str, facts: Facts) -> list[object]:
    found = [getattr(facts, field)] if field in TEXTS | NUMBERS | DATES | SHARED else []
    key = metadata_key(field)
    return found if key is None else [*found, (facts.metadata or {}).get(key)]


def _each(found: Sequence[object]) -> Iterator[object]:
    for value in found:
        yield from value if isinstance(value, list | tuple) else [value]


def _equal(value: object, asked: Value) -> bool:
    if isinstance(asked, Moment):
        return _instant(value) == asked.microseconds
    return _type(value) is not None and _type(value) == _type(asked) and value == asked


def _ordered(value: object, direction: Direction, asked: float | str | Moment) -> bool:
    if isinstance(asked, Moment):
        value, asked = _instant(value), asked.microseconds
    return _type(value) is not None and _type(value) == _type(asked) and bool(DIRECTIONS[direction](value, asked))


def _instant(value: object) -> int | None:
    if isinstance(value, datetime):
        return instant(value.astimezone(UTC).isoformat())
    return instant(value)


def _type(value: object) -> str | None:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else None


# -- how it is read ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Count:
    """What one filter has used of its bounds."""

    conditions: int = 0
    values: int = 0

    def add(self, place: str, *, conditions: int = 0, values: int = 0) -> None:
        self.conditions += conditions
        self.values += values
        if self.conditions > MOST_CONDITIONS:
            raise BadInput(f"{place}: a filter has at most {MOST_CONDITIONS} comparisons; use `in` for many values.")
        if self.values > MOST_VALUES:
            raise BadInput(f"{place}: a filter has at most {MOST_VALUES:,} values; mark the documents with metadata.")


def parse_filter(given: object, place: str = "filters") -> Filter:
    """Return the filter that parsed JSON says; raises `BadInput` with one sentence that names the place and the cure.

    An empty object lets everything through. ``place`` is what the sender calls the whole.
    """
    if given == {}:
        return And(())
    return _filter(given, place, 1, _Count())


def _filter(given: object, place: str, depth: int, count: _Count) -> Filter:
    if not isinstance(given, Mapping) or not given:
        raise BadInput(f'{place}: must be a JSON object with a condition in it, for example {{"year": 2026}}.')
    if depth > DEEPEST:
        raise BadInput(f"{place}: filters may lie {DEEPEST} deep in each other, not more.")
    parts: list[Filter] = []
    for key, value in given.items():
        if key in {"and", "or"}:
            parts.append(_joined(key, value, f"{place}.{key}", depth, count))
        elif key == "not":
            parts.append(Not(_filter(value, f"{place}.not", depth + 1, count)))
        else:
            parts += _conditions(_field(key, place), value, place, count)
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _joined(word: str, given: object, place: str, depth: int, count: _Count) -> Filter:
    if not isinstance(given, list) or not given:
        raise BadInput(f'{place}: must be a list of filters, for example [{{"year": 2025}}, {{"year": 2026}}].')
    parts = tuple(_filter(part, f"{place}.{number}", depth + 1, count) for number, part in enumerate(given))
    return And(parts) if word == "and" else Or(parts)


def _field(key: object, place: str) -> str:
    name = metadata_key(key) or key if isinstance(key, str) else ""
    if not isinstance(key, str) or not METADATA_KEY.fullmatch(name):
        raise BadInput(f"{place}: {_shown(key)} is no metadata key; use letters, digits, dots, dashes and underscores.")
    return key


def _shown(name: object) -> str:
    return ascii(str(name))[:100]


def _conditions(field: str, given: object, place: str, count: _Count) -> list[Filter]:
    """Return what is asked of one field: a value that it must equal, or comparisons that must all hold."""
    place = f"{place}.{field}"
    if given is None:
        raise BadInput(f'{place}: null is no value; {{"exists": false}} asks for what does not have the field.')
    if isinstance(given, list):
        raise BadInput(f'{place}: write {{"in": [...]}} for one of several values.')
    if not isinstance(given, Mapping):
        count.add(place, conditions=1, values=1)
        return [_equal_to(field, given, place, count)]
    if not given:
        raise BadInput(f"{place}: no comparison is named; use {_COMPARISONS}.")
    return [_condition(field, comparison, value, place, count) for comparison, value in given.items()]


def _condition(field: str, comparison: object, given: object, place: str, count: _Count) -> Filter:
    count.add(place, conditions=1, values=1)
    if comparison not in _READERS:
        raise BadInput(f"{place}: {_shown(comparison)} is no comparison; use {_COMPARISONS}.")
    return _READERS[comparison](field, given, f"{place}.{comparison}", count)


def _equal_to(field: str, given: object, place: str, _: _Count) -> Filter:
    return Among(field, (_value(field, given, place),))


def _unequal_to(field: str, given: object, place: str, _: _Count) -> Filter:
    return And((Exists(field), Not(Among(field, (_value(field, given, place),)))))


def _order(field: str, given: object, place: str, _: _Count, *, direction: Direction) -> Filter:
    value = _value(field, given, place)
    if isinstance(value, bool):
        raise BadInput(f"{place}: true and false have no order; use eq or ne.")
    return Order(field, direction, value)


def _exists(field: str, given: object, place: str, _: _Count) -> Filter:
    if not isinstance(given, bool):
        raise BadInput(f"{place}: must be true or false.")
    return Exists(field) if given else Not(Exists(field))


def _among(field: str, given: object, place: str, count: _Count) -> Filter:
    if not isinstance(given, list) or not given:
        raise BadInput(f"{place}: must be a list of at least one value.")
    count.add(place, values=len(given) - 1)
    return Among(field, tuple(_value(field, value, f"{place}.{number}") for number, value in enumerate(given)))


def _prefix(field: str, given: object, place: str, _: _Count) -> Filter:
    if field in NUMBERS | DATES:
        raise BadInput(f"{place}: only texts have a prefix; use gte and lt for the field {field}.")
    if not isinstance(given, str) or not given:
        raise BadInput(f"{place}: must be a text of at least one character.")
    return Prefix(field, _text(given, place))


def _value(field: str, given: object, place: str) -> Value:
    """Return a value as it is compared with this field; raises `BadInput` if it can not be."""
    instead = f"metadata of that name is {IN_METADATA}{field}"
    if field in TEXTS:
        if not isinstance(given, str):
            raise BadInput(f"{place}: must be a text in quotation marks; {instead}.")
        if field == "kind" and given not in [*Kind]:
            raise BadInput(f"{place}: must be one of {', '.join(Kind)}; {instead}.")
        return _text(given, place)
    if field in DATES:
        if (moment := instant(given)) is None:
            raise BadInput(f"{place}: must be a date like 2026-01-31 or 2026-01-31T09:30:00Z; {instead}.")
        return Moment(str(given), moment)
    if field in NUMBERS and (isinstance(given, bool) or not isinstance(given, int | float)):
        raise BadInput(f"{place}: must be a number; {instead}.")
    return _scalar(given, place)


def _scalar(given: object, place: str) -> Value:
    if isinstance(given, bool):
        return given
    if isinstance(given, str):
        moment = instant(_text(given, place))
        return given if moment is None else Moment(given, moment)
    if not isinstance(given, int | float):
        raise BadInput(f"{place}: must be a text, a number, true or false.")
    if isinstance(given, float) and not math.isfinite(given):
        raise BadInput(f"{place}: must be a finite number.")
    if abs(given) > LARGEST:
        raise BadInput(f"{place}: is too large a number to be compared exactly; the largest is {LARGEST:,}.")
    return given


def _text(given: str, place: str) -> str:
    if len(given) > MOST_CHARS:
        raise BadInput(f"{place}: has {len(given):,} characters; the limit is {MOST_CHARS:,}.")
    if any(character == "\0" or 0xD800 <= ord(character) <= 0xDFFF for character in given):
        raise BadInput(f"{place}: is not valid text: it holds a NUL character or half of a character pair.")
    return given


_READERS: Mapping[object, Callable[[str, object, str, _Count], Filter]] = {
    "eq": _equal_to,
    "ne": _unequal_to,
    "lt": partial(_order, direction="lt"),
    "lte": partial(_order, direction="lte"),
    "gt": partial(_order, direction="gt"),
    "gte": partial(_order, direction="gte"),
    "in": _among,
    "prefix": _prefix,
    "exists": _exists,
}
_COMPARISONS = ", ".join(map(str, _READERS))
