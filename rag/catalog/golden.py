"""Golden questions in the catalog: added, listed, confirmed, removed.

Words that stand in a document go when it is purged: those that name a passage, and a reference that is made of the
sentences of an answer. What people wrote themselves stays. Knows no file and asks nobody anything.
"""

from __future__ import annotations

from collections.abc import Collection as Some
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from rag.catalog.answers import all_there
from rag.catalog.locks import own_collections, share_collection
from rag.catalog.part import Part, now, slices
from rag.database import readable
from rag.errors import Conflict, NotFound
from rag.golden import Content, GoldenDocument, GoldenQuestion, Outcome, Proposed, Standing, golden_id
from rag.schema import documents, golden_documents, golden_questions, golden_tags, versions


class Golden(Part):
    """The part of the catalog that knows golden questions."""

    def add_golden(self, collection_id: str, proposed: Sequence[Proposed]) -> list[tuple[Outcome, GoldenQuestion]]:
        """Add questions in one transaction, each in place of an equal one; raises `NotFound` without the collection.

        One that says what is there already is not confirmed by that.
        """
        made = [_readable(one) for one in proposed]
        ids = [golden_id(collection_id, one.question) for one in made]
        with self._write() as connection:
            own_collections(connection, collection_id)  # for the numbers
            if not share_collection(connection, collection_id):
                raise NotFound("The collection was deleted.")
            quoted = {c for one in made if one.quoting for d in one.documents if (c := d.confirmed)}
            if not all_there(connection, {(content.document_id, content.version) for content in quoted}):
                raise NotFound("A document that the answer cites was purged meanwhile.")
            known = {
                found.id: found for some in slices(ids) for found in _read(connection, golden_questions.c.id.in_(some))
            }
            live = _live(connection, collection_id, {document.name for one in made for document in one.documents})
            here = golden_questions.c.collection_id == collection_id
            last = connection.scalar(sa.select(sa.func.max(golden_questions.c.number)).where(here)) or 0
            outcomes = []
            for key, one in zip(ids, made, strict=True):
                if key in known and known[key].says(one):
                    outcomes.append(Outcome.UNCHANGED)
                    continue
                outcomes.append(Outcome.REPLACED if key in known else Outcome.ADDED)
                last += key not in known
                known[key] = _made(key, collection_id, one, live, known.get(key))
                _put(connection, known[key], last)
                self._note(connection, "golden.add", key, collection_id)
        return [(outcome, known[key]) for outcome, key in zip(outcomes, ids, strict=True)]

    def golden(self, question_id: str) -> GoldenQuestion:
        """Return a golden question; raises `NotFound`."""
        with self._read() as connection:
            return _one(connection, question_id, self._sees(golden_questions.c.collection_id))

    def list_golden(
        self,
        collection_id: str | None = None,
        *,
        tag: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[GoldenQuestion]:
        """Return golden questions of one collection or of all, in the order in which they came.

        With ``tag`` those that have it; up to ``limit`` behind the question ``after``.
        """
        condition = self._sees(golden_questions.c.collection_id)
        if collection_id is not None:
            condition &= golden_questions.c.collection_id == collection_id
        if tag is not None:
            tagged = sa.select(golden_tags.c.question_id).where(golden_tags.c.tag == tag)
            condition &= golden_questions.c.id.in_(tagged)
        if after is not None:
            last = sa.alias(golden_questions)
            mine = (last.c.id == after) & self._sees(last.c.collection_id)
            where = sa.select(last.c.collection_id).where(mine).scalar_subquery()
            number = sa.select(last.c.number).where(mine).scalar_subquery()
            here = golden_questions.c.collection_id
            condition &= (here > where) | ((here == where) & (golden_questions.c.number > number))
        with self._read() as connection:
            return _read(connection, condition, limit)

    def live_contents(self, collection_id: str, names: Some[str]) -> dict[str, Content]:
        """Return what is searched of the documents of these names, by name; those of which nothing is are missing."""
        with self._read() as connection:
            return _live(connection, collection_id, names)

    def confirm_golden(self, question_id: str) -> GoldenQuestion:
        """Confirm a question with what is searched of its documents now.

        Raises `NotFound`, and `Conflict` if nothing is searched of one of them.
        """
        with self._write() as connection:
            held = sa.select(golden_questions.c.id).where(golden_questions.c.id == question_id).with_for_update()
            connection.execute(held).all()
            found = _one(connection, question_id, self._sees(golden_questions.c.collection_id))
            live = _live(connection, found.collection_id, {document.name for document in found.documents})
            for document in found.documents:
                if document.stands(live.get(document.name)) is Standing.GONE:
                    raise Conflict(
                        f"{document.name[:200]!r} is not in the collection; add the question again with another "
                        "document, or remove it."
                    )
            confirmed = tuple(replace(one, confirmed=live[one.name]) for one in found.documents)
            found = replace(found, documents=confirmed, confirmed_at=now())
            mine = golden_questions.c.id == question_id
            connection.execute(golden_questions.update().where(mine).values(confirmed_at=found.confirmed_at))
            _put_documents(connection, found)
            self._note(connection, "golden.confirm", question_id, found.collection_id)
        return found

    def remove_golden(self, question_id: str) -> None:
        """Remove a golden question; raises `NotFound`."""
        with self._database.erasing() as connection:
            mine = (golden_questions.c.id == question_id) & self._sees(golden_questions.c.collection_id)
            if not drop_golden(connection, mine):
                raise _no_question(question_id)
            self._note(connection, "golden.remove", question_id)


def drop_golden(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> int:
    """Remove the golden questions for which a condition holds; return how many."""
    query = sa.select(golden_questions.c.id).where(condition).order_by(golden_questions.c.id).with_for_update()
    locked = connection.scalars(query).all()
    for ids in slices(locked):
        for table in (golden_tags, golden_documents):
            connection.execute(table.delete().where(table.c.question_id.in_(ids)))
        connection.execute(golden_questions.delete().where(golden_questions.c.id.in_(ids)))
    return len(locked)


def drop_quotes_of(connection: sa.Connection, gone: Some[tuple[str, int]]) -> None:
    """Take from golden questions what stands in some versions, given by document and number.

    The documents stay named: a check then says that they have changed or are gone.
    """
    mine: set[str] = set()
    for ids in slices(sorted({document_id for document_id, _ in gone})):
        those = sa.select(golden_documents).where(golden_documents.c.document_id.in_(ids))
        for row in connection.execute(those).all():
            if (row.document_id, row.version) in gone:
                mine.add(row.question_id)
                here = (golden_documents.c.question_id == row.question_id) & (golden_documents.c.number == row.number)
                connection.execute(golden_documents.update().where(here).values(text=None))
    for some in slices(sorted(mine)):
        theirs = golden_questions.c.id.in_(some)
        connection.execute(golden_questions.update().where(theirs).values(purged_at=now()))
        connection.execute(golden_questions.update().where(theirs & golden_questions.c.quoting).values(reference=None))


def _no_question(question_id: str) -> NotFound:
    return NotFound(f"There is no golden question {question_id[:64]!r}; `citewell golden list` shows what there is.")


def _readable(proposed: Proposed) -> Proposed:
    named = (
        replace(one, name=readable(one.name), text=readable(one.text) if one.text else None)
        for one in proposed.documents
    )
    return replace(
        proposed,
        question=" ".join(str(readable(proposed.question)).split()),
        reference=readable(proposed.reference) if proposed.reference else None,
        tags=frozenset(str(readable(tag)) for tag in proposed.tags),
        documents=tuple(named),
    )


def _made(
    key: str, collection_id: str, proposed: Proposed, live: Mapping[str, Content], known: GoldenQuestion | None
) -> GoldenQuestion:
    at = now()
    confirmed = (replace(one, confirmed=one.confirmed or live.get(one.name)) for one in proposed.documents)
    return GoldenQuestion(
        key, collection_id, proposed.question, proposed.reference, proposed.answerable, tuple(confirmed), proposed.tags,
        proposed.quoting, known.created_at if known else at, at,
    )  # fmt: skip


def _put(connection: sa.Connection, found: GoldenQuestion, number: int) -> None:
    """Write a question in place of the one with the same id, which keeps its number."""
    row: dict[str, Any] = {
        "question": found.question, "reference": found.reference, "answerable": found.answerable,
        "quoting": found.quoting, "confirmed_at": found.confirmed_at, "purged_at": None,
    }  # fmt: skip
    mine = golden_questions.c.id == found.id
    if not connection.execute(golden_questions.update().where(mine).values(row)).rowcount:
        born = {"id": found.id, "collection_id": found.collection_id, "number": number, "created_at": found.created_at}
        connection.execute(golden_questions.insert(), row | born)
    connection.execute(golden_tags.delete().where(golden_tags.c.question_id == found.id))
    if found.tags:
        rows = [{"question_id": found.id, "tag": tag} for tag in sorted(found.tags)]
        connection.execute(golden_tags.insert(), rows)
    _put_documents(connection, found)


def _put_documents(connection: sa.Connection, found: GoldenQuestion) -> None:
    connection.execute(golden_documents.delete().where(golden_documents.c.question_id == found.id))
    rows = [
        {
            "question_id": found.id, "number": number, "name": one.name, "text": one.text,
            "document_id": one.confirmed and one.confirmed.document_id,
            "version": one.confirmed and one.confirmed.version, "sha256": one.confirmed and one.confirmed.sha256,
        }
        for number, one in enumerate(found.documents, 1)
    ]  # fmt: skip
    if rows:
        connection.execute(golden_documents.insert(), rows)


def _one(connection: sa.Connection, question_id: str, seen: sa.ColumnElement[bool]) -> GoldenQuestion:
    found = _read(connection, (golden_questions.c.id == question_id) & seen)
    if not found:
        raise _no_question(question_id)
    return found[0]


def _read(
    connection: sa.Connection, condition: sa.ColumnElement[bool], limit: int | None = None
) -> list[GoldenQuestion]:
    order = golden_questions.c.collection_id, golden_questions.c.number, golden_questions.c.id
    rows = connection.execute(sa.select(golden_questions).where(condition).order_by(*order).limit(limit)).all()
    tags: dict[str, set[str]] = {row.id: set() for row in rows}
    rests_on: dict[str, list[GoldenDocument]] = {row.id: [] for row in rows}
    for ids in slices([*tags]):
        for row in connection.execute(sa.select(golden_tags).where(golden_tags.c.question_id.in_(ids))):
            tags[row.question_id].add(row.tag)
        those = sa.select(golden_documents).where(golden_documents.c.question_id.in_(ids))
        for row in connection.execute(those.order_by(golden_documents.c.number)):
            content = Content(row.document_id, row.version, row.sha256) if row.document_id else None
            rests_on[row.question_id].append(GoldenDocument(row.name, row.text, content))
    return [
        GoldenQuestion(
            row.id, row.collection_id, row.question, row.reference, row.answerable, tuple(rests_on[row.id]),
            frozenset(tags[row.id]), row.quoting, row.created_at, row.confirmed_at, row.purged_at,
        )
        for row in rows
    ]  # fmt: skip


def _live(connection: sa.Connection, collection_id: str, names: Some[str]) -> dict[str, Content]:
    query = (
        sa.select(documents.c.name, documents.c.id, versions.c.number, versions.c.sha256)
        .join(versions, versions.c.id == documents.c.live_version_id)
        .where((documents.c.collection_id == collection_id) & documents.c.deleted_at.is_(None))
    )
    return {
        row.name: Content(row.id, row.number, row.sha256)
        for some in slices(sorted(names))
        for row in connection.execute(query.where(documents.c.name.in_(some)))
    }
