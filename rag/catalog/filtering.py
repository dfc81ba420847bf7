"""A filter as SQL: which live rows of a collection pass it, in the words of SQLite and of PostgreSQL.

What is asked of documents is asked once for each version that is searched, not for each of its chunks. Every condition
is true or false and never NULL, so that ``NOT`` means what it says. All that a sender chose goes in as a parameter.
Knows the tables, and nothing of how a filter is written: that, and what it means, `rag.filters` says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any, Protocol, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from rag.catalog.part import LIVE
from rag.filters import (
    DATES,
    DIRECTIONS,
    ISO,
    OF_PASSAGES,
    Among,
    And,
    Exists,
    Filter,
    Leaf,
    Moment,
    Not,
    Or,
    Order,
    Prefix,
    Value,
    fields_of,
    holds,
    metadata_key,
)
from rag.schema import chunks, documents, versions

Sql: TypeAlias = sa.ColumnElement[Any]
#: A value as each of its possible types: a column that is NULL where the value is of another one.
Typed: TypeAlias = Mapping[str, Sql]

_COLUMNS: Mapping[str, Typed] = {
    "document": {"text": documents.c.name},
    "document_id": {"text": documents.c.id},
    "title": {"text": versions.c.title},
    "language": {"text": versions.c.language},
    "media_type": {"text": versions.c.media_type},
    "pages": {"number": versions.c.pages},
    "page": {"number": chunks.c.page},
    "kind": {"text": chunks.c.kind},
}
_FIRST = datetime(1, 1, 1, tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Searched:
    """The collection that is looked in."""

    id: str
    name: str


def passing_rows(asked: Filter, collection: Searched, dialect: str) -> sa.Select[str | None]:
    """Return the query for the numbers of the live rows that pass, in no order, joined by commas; NULL if none does.

    One text, since a million rows fetched one by one take several times as long.
    """
    speech = _SPEECH[dialect]
    here = LIVE & _of_rows(asked, collection, speech)
    if not _names_versions(asked):  # which are those of the collection; named again, it would lead SQLite to all rows
        here &= chunks.c.collection_id == collection.id
    return sa.select(speech.joined(chunks.c.seq)).where(here)


def _names_versions(asked: Filter) -> bool:
    """Say whether every row that passes is of a version that the query names."""
    parts = asked.parts if isinstance(asked, And) else (asked,)
    return any(not _asks_of_passages(part) for part in parts) or not parts


def _asks_of_passages(asked: Filter) -> bool:
    return not OF_PASSAGES.isdisjoint(fields_of(asked))


def _of_rows(asked: Filter, collection: Searched, speech: _Speech) -> Sql:
    """The condition of a row of ``chunks``; the largest parts that ask of documents alone are one query each."""
    if not _asks_of_passages(asked):
        return chunks.c.version_id.in_(_versions(asked, collection, speech))
    match asked:
        case And(parts):
            return sa.and_(*(_of_rows(part, collection, speech) for part in _gathered(And, parts)))
        case Or(parts):
            return sa.or_(*(_of_rows(part, collection, speech) for part in _gathered(Or, parts)))
        case Not(part):
            return sa.not_(_of_rows(part, collection, speech))
        case leaf:
            return _of_column(leaf, _COLUMNS[leaf.field], speech)


def _gathered(joined: type[And | Or], parts: Sequence[Filter]) -> list[Filter]:
    """Return ``parts`` with all those that ask of documents alone made one."""
    of_documents = tuple(part for part in parts if not _asks_of_passages(part))
    of_rows = [part for part in parts if _asks_of_passages(part)]
    return [joined(of_documents), *of_rows] if of_documents else of_rows


def _versions(asked: Filter, collection: Searched, speech: _Speech) -> sa.Select[str]:
    """Return the query for the ids of the searched versions of a collection that pass."""
    return (
        sa.select(versions.c.id)
        .join(documents, documents.c.live_version_id == versions.c.id)
        .where((documents.c.collection_id == collection.id) & _of_version(asked, collection, speech))
    )


def _of_version(asked: Filter, collection: Searched, speech: _Speech) -> Sql:
    match asked:
        case And(parts):
            return sa.and_(sa.true(), *(_of_version(part, collection, speech) for part in parts))
        case Or(parts):
            return sa.or_(sa.false(), *(_of_version(part, collection, speech) for part in parts))
        case Not(part):
            return sa.not_(_of_version(part, collection, speech))
        case leaf if leaf.field == "collection":
            return sa.true() if holds(leaf, [collection.name]) else sa.false()
        case leaf if leaf.field in DATES:
            return _of_time(leaf, versions.c.created_at)
        case leaf:
            places = [_of_column(leaf, _COLUMNS[leaf.field], speech)] if leaf.field in _COLUMNS else []
            key = metadata_key(leaf.field)
            return sa.or_(*places, *([] if key is None else [speech.of_metadata(leaf, key)]))


def _of_time(leaf: Leaf, column: sa.Column[datetime]) -> Sql:
    match leaf:
        case Among(_, values):
            return column.in_([_at(value) for value in values])
        case Order(_, direction, value):
            condition: Sql = DIRECTIONS[direction](column, _at(value))
            return condition
        case _:
            return sa.true()  # it is there always, and it has no prefix


def _at(value: Value) -> datetime:
    """Return a moment as the database has it; one before the first or after the last day of the calendar as these."""
    microseconds = value.microseconds if isinstance(value, Moment) else 0
    most = (_LAST - _FIRST) // timedelta(microseconds=1)
    return _FIRST + timedelta(microseconds=min(max(microseconds, 0), most))


def _of_column(leaf: Leaf, column: Typed, speech: _Speech) -> Sql:
    if isinstance(leaf, Exists):
        return sa.or_(*(typed.is_not(None) for typed in column.values()))
    compared = _compared(leaf, column, speech)
    if all(isinstance(typed, sa.Column) and not typed.nullable for typed in column.values()):
        return compared  # as it stands, PostgreSQL knows how many rows it will leave
    return sa.func.coalesce(compared, sa.false())


def _compared(leaf: Leaf, value: Typed, speech: _Speech) -> Sql:
    """The condition that a comparison holds for one value; it may be NULL."""
    match leaf:
        case Among(_, values):
            groups = groupby(sorted(values, key=_type), key=_type)
            typed = ((_side(value, kind, speech), [speech.asked(one) for one in group]) for kind, group in groups)
            return sa.or_(sa.false(), *(side.in_(asked) for side, asked in typed if side is not None))
        case Order(_, direction, asked):
            side = _side(value, _type(asked), speech)
            return sa.false() if side is None else DIRECTIONS[direction](speech.ordered(side), speech.asked(asked))
        case Prefix(_, text) if "text" in value:
            return sa.func.substr(value["text"], 1, len(text)) == text
        case _:
            return sa.false()


def _type(asked: Value) -> str:
    if isinstance(asked, bool):
        return "truth"
    if isinstance(asked, Moment):
        return "moment"
    return "text" if isinstance(asked, str) else "number"


def _side(value: Typed, kind: str, speech: _Speech) -> Sql | None:
    """Return a value as one of its types, None if it can never be of that type."""
    if kind == "moment":
        return speech.moment(value["text"]) if "text" in value else None
    return value.get(kind)


class _Speech(Protocol):
    """What the databases say differently."""

    def joined(self, number: Sql) -> Sql:
        """All numbers, as one text."""
        ...

    def of_metadata(self, leaf: Leaf, key: str) -> Sql:
        """The condition that a comparison holds for what stands under a key of a version's metadata; never NULL."""
        ...

    def moment(self, text: Sql) -> Sql:
        """A text as `rag.filters.instant` reads it."""
        ...

    def ordered(self, value: Sql) -> Sql:
        """A value that is compared by code point if it is a text."""
        ...

    def asked(self, value: Value) -> Any:
        """A value as it is compared with one of the database."""
        ...


class _Sqlite:
    #: How SQLite calls the types of JSON values.
    _TRUTH, _NUMBERS = ("true", "false"), ("integer", "real")

    def joined(self, number: Sql) -> Sql:
        return sa.func.group_concat(number)

    def of_metadata(self, leaf: Leaf, key: str) -> Sql:
        """``json_each`` gives a value itself, or those of a list; those of an object, with names, do not count."""
        path = f'$."{key}"'
        if isinstance(leaf, Exists):
            return sa.func.coalesce(sa.func.json_type(versions.c.metadata, path), "null") != "null"
        item = sa.func.json_each(versions.c.metadata, path).table_valued("key", "value", "type", name="item")
        unnamed = sa.func.typeof(item.c.key) != "text"
        value = {
            "text": sa.case((item.c.type == "text", item.c.value)),
            "number": sa.case((item.c.type.in_(self._NUMBERS), item.c.value)),
            "truth": sa.case((item.c.type.in_(self._TRUTH), item.c.type)),
        }
        return sa.exists(sa.select(1).select_from(item).where(unnamed & _compared(leaf, value, self)))

    def moment(self, text: Sql) -> Sql:
        return sa.func.instant(text)  # which `rag.database` gives to each connection

    def ordered(self, value: Sql) -> Sql:
        return value

    def asked(self, value: Value) -> Any:
        """A number is read by SQLite itself, as those of the metadata are: its readings differ in the last bit."""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, Moment):
            return value.microseconds
        return value if isinstance(value, str) else sa.func.json_extract(json.dumps(value), "$")


class _Postgresql:
    #: From the beginning of year 1, with which `Moment` counts, to that of PostgreSQL's epoch.
    _EPOCH = (datetime(1970, 1, 1, tzinfo=UTC) - _FIRST) // timedelta(microseconds=1)

    def joined(self, number: Sql) -> Sql:
        return sa.func.string_agg(sa.cast(number, sa.Text), ",")

    def of_metadata(self, leaf: Leaf, key: str) -> Sql:
        found = versions.c.metadata[key]
        if isinstance(leaf, Exists):
            return sa.func.coalesce(sa.func.json_typeof(found), "null") != "null"
        path: Sql = sa.literal_column("'$[*]'")  # which takes what is no list as a list of one
        item = sa.func.jsonb_path_query(sa.cast(found, JSONB), path).table_valued(sa.column("item", JSONB), name="item")
        type_ = sa.func.jsonb_typeof(item.c.item)
        text = item.c.item.op("#>>", return_type=sa.Text())(sa.literal_column("'{}'"))
        value = {
            "text": sa.case((type_ == "string", text)),
            "number": sa.case((type_ == "number", sa.cast(text, sa.Numeric))),
            "truth": sa.case((type_ == "boolean", text)),
        }
        return sa.exists(sa.select(1).select_from(item).where(_compared(leaf, value, self)))

    def moment(self, text: Sql) -> Sql:
        """Nothing is cast before it is known that it can be, which in PostgreSQL only CASE promises."""
        cut = sa.func.regexp_replace(text, r"(\.[0-9]{6})[0-9]+", r"\1", type_=sa.Text())
        zoned = sa.case((sa.func.substr(text, 11).regexp_match("[Z+-]"), cut), else_=cut.concat(" UTC"))
        seconds = sa.extract("epoch", sa.cast(zoned, sa.DateTime(timezone=True)))
        microseconds = sa.cast(seconds * 1_000_000, sa.BigInteger) + self._EPOCH
        year, month, day = (sa.cast(sa.func.substr(text, *place), sa.Integer) for place in ((1, 4), (6, 2), (9, 2)))
        last = sa.func.make_date(year, month, 1) + sa.literal_column("interval '1 month -1 day'")
        exists = day <= sa.extract("day", last)
        return sa.case((text.regexp_match(f"^({ISO})$"), sa.case((exists, microseconds))))

    def ordered(self, value: Sql) -> Sql:
        return sa.collate(value, "C") if isinstance(value.type, sa.String) else value

    def asked(self, value: Value) -> Any:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, Moment):
            return value.microseconds
        return value if isinstance(value, str) else sa.literal(Decimal(repr(value)), sa.Numeric)


_SPEECH: Mapping[str, _Speech] = {"sqlite": _Sqlite(), "postgresql": _Postgresql()}
