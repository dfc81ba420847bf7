"""Answers in the catalog: logged, found again, followed while they are written, and forgotten.

What an answer quotes goes with the documents that it saw: where these are purged, `drop_texts` takes all text from it.
An answer that is being written meanwhile loses its own when it is added. Knows nothing of how an answer is made.
"""

from __future__ import annotations

from collections.abc import Collection as Some
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from rag.catalog.locks import share_collection
from rag.catalog.part import Part, now, packed_text, slices, unpacked_text
from rag.database import readable
from rag.errors import NotFound
from rag.logged import (
    DEAD_SECONDS,
    LAST,
    Entry,
    Exchange,
    Facts,
    Feedback,
    Followed,
    Headline,
    Logged,
    Texts,
    Told,
    from_json,
    least_support,
    to_json,
)
from rag.queries import Message, Speaker
from rag.schema import (
    answer_collections,
    answer_documents,
    answer_events,
    answer_feedback,
    answers,
    versions,
)

_HEADLINE = (
    answers.c.id, answers.c.created_at, answers.c.cached, answers.c.conversation, answers.c.generator,
    answers.c.abstained, answers.c.question, answers.c.text,
)  # fmt: skip
#: What an answer without texts has in their columns.
_NO_TEXTS: dict[str, Any] = {"question": None, "text": None, "texts": None, "cache_key": None, "basis": None}


class Answers(Part):
    """The part of the catalog that knows answers."""

    def add_answers(self, entries: Sequence[Entry]) -> None:
        """Log answers in one transaction, each in place of what `open_answer` has begun.

        Of one that saw a document which was purged since, or is a turn of a conversation that lost a turn since it
        began, no text is kept.
        """
        in_turn = sorted(entries, key=lambda entry: (entry.logged.created_at, entry.logged.id))
        made = [(entry, _row(entry)) for entry in in_turn]
        with self._write() as connection:
            here = _shared(connection, entries)
            for entry, row in made:
                documents = entry.saw | _said_before(connection, entry.logged)
                kept = (
                    here.issuperset(entry.collections)
                    and all_there(connection, documents)
                    and not _lost_a_turn(connection, entry.logged)
                )
                _put(connection, row if kept else row | _NO_TEXTS | {"purged_at": now()})
                for table, links in _links(entry, documents).items():
                    connection.execute(table.delete().where(table.c.answer_id == entry.logged.id))
                    if links:
                        connection.execute(table.insert(), links)

    def open_answer(self, entry: Entry) -> None:
        """Begin an answer whose events are kept before it has ended; raises `NotFound` if a collection is gone."""
        with self._write() as connection:
            if not _shared(connection, [entry]).issuperset(entry.collections) or not all_there(connection, entry.saw):
                raise NotFound("A collection or a document was deleted meanwhile; ask again.")
            _put(connection, _row(entry) | {"seen_at": self._database.now(connection)})
            for table, rows in _links(entry, entry.saw).items():
                if rows:
                    connection.execute(table.insert(), rows)

    def answer(self, answer_id: str) -> Logged:
        """Return an answer of the log; raises `NotFound`."""
        with self._read() as connection:
            mine = (answers.c.id == answer_id) & self._sees_answer()
            row = connection.execute(sa.select(answers).where(mine)).one_or_none()
            said = sa.select(answer_feedback).where(answer_feedback.c.answer_id == answer_id)
            feedback = connection.execute(said.order_by(answer_feedback.c.number)).all()
        if row is None:
            raise _no_answer(answer_id)
        return Logged(
            row.id, row.created_at, row.cached, row.conversation, row.generator, row.abstained,
            from_json(Texts, unpacked_text(row.texts)) if row.texts else None,
            from_json(Facts, unpacked_text(row.facts)) if row.facts else None, row.purged_at,
            tuple(Feedback(r.created_at, r.rating, r.claim, r.comment) for r in feedback),
        )  # fmt: skip

    def list_answers(
        self, collection_id: str | None = None, *, limit: int = 20, before: str | None = None
    ) -> list[Headline]:
        """Return the last answers, of one collection or of all, the newest first; ``before`` is the last one had."""
        query = sa.select(*_HEADLINE).where(answers.c.facts.is_not(None) & self._sees_answer())
        if collection_id is not None:
            here = answer_collections.c.collection_id == collection_id
            query = query.where(answers.c.id.in_(sa.select(answer_collections.c.answer_id).where(here)))
        if before is not None:
            last = answers.alias()
            mine = (last.c.id == before) & self._sees_answer(last.c.id)
            at = sa.select(last.c.created_at).where(mine).scalar_subquery()
            query = query.where((answers.c.created_at < at) | ((answers.c.created_at == at) & (answers.c.id > before)))
        with self._read() as connection:
            rows = connection.execute(query.order_by(answers.c.created_at.desc(), answers.c.id).limit(limit)).all()
        return [Headline(*row) for row in rows]

    def delete_answer(self, answer_id: str) -> None:
        """Remove an answer with all that was said of it; raises `NotFound`."""
        with self._database.erasing() as connection:
            if not _remove(connection, (answers.c.id == answer_id) & self._sees_answer()):
                raise _no_answer(answer_id)
            self._note(connection, "answer.delete", answer_id)

    def forget_answers(self, before: datetime, most: int | None = None) -> int:
        """Remove the answers that were begun before a moment, and all but the newest ``most``; return how many."""
        newest = sa.select(answers.c.created_at).order_by(answers.c.created_at.desc())
        with self._read() as connection:
            last_kept = connection.scalar(newest.offset(most - 1).limit(1)) if most is not None else None
            old = answers.c.created_at < max(before, last_kept or before)
            if connection.scalar(sa.select(answers.c.id).where(old).limit(1)) is None:
                return 0
        with self._database.erasing() as connection:
            return _remove(connection, old)

    def add_feedback(self, answer_id: str, rating: float, claim: int | None, comment: str | None) -> Feedback:
        """Note what somebody thinks of an answer, after what was said before; raises `NotFound`."""
        said = Feedback(now(), rating, claim, None if comment is None else str(readable(comment)))
        with self._write() as connection:
            held = sa.select(answers.c.id).where((answers.c.id == answer_id) & self._sees_answer()).with_for_update()
            if connection.scalar(held) is None:
                raise _no_answer(answer_id)
            mine = answer_feedback.c.answer_id == answer_id
            last = connection.scalar(sa.select(sa.func.max(answer_feedback.c.number)).where(mine))
            row = {"answer_id": answer_id, "number": 1 if last is None else last + 1, "created_at": said.created_at}
            said_row = {"rating": said.rating, "claim": said.claim, "comment": said.comment}
            connection.execute(answer_feedback.insert(), row | said_row)
            self._note(connection, "answer.rate", answer_id)
        return said

    def turns(self, conversation: str, limit: int) -> list[Message]:
        """Return the last ``limit`` questions of a conversation with their answers, oldest first."""
        query = (
            sa.select(answers.c.question, answers.c.text)
            .where((answers.c.conversation == conversation) & answers.c.question.is_not(None))
            .where(answers.c.facts.is_not(None) & self._sees_answer())
            .order_by(answers.c.created_at.desc(), answers.c.id)
            .limit(limit)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
        said = [(Message(Speaker.USER, r.question), Message(Speaker.ASSISTANT, r.text or "")) for r in reversed(rows)]
        return [message for turn in said for message in turn]

    def known_answer(self, cache_key: str, found: str, generator: str, since: datetime) -> Logged | None:
        """Return the newest answer to an equal question over equal passages that a generator wrote since a moment."""
        same = (answers.c.cache_key == cache_key) & (answers.c.basis == found) & (answers.c.generator == generator)
        query = sa.select(answers.c.id).where(same & (answers.c.created_at >= since) & answers.c.facts.is_not(None))
        with self._read() as connection:
            known = connection.scalar(query.order_by(answers.c.created_at.desc()).limit(1))
        if known is None:
            return None
        try:
            return self.answer(known)
        except NotFound:  # it was deleted this very moment
            return None

    def answer_counts(self, since: datetime) -> tuple[int, int]:
        """Return how many answers were logged since a moment, and how many of them another one stood for."""
        told = sa.func.coalesce(sa.func.sum(sa.case((answers.c.cached, 1), else_=0)), 0)
        with self._read() as connection:
            count, cached = connection.execute(
                sa.select(sa.func.count(), told).where((answers.c.created_at >= since) & answers.c.facts.is_not(None))
            ).one()
        return int(count), int(cached)

    def exchanges(self, since: datetime, until: datetime) -> list[Exchange]:
        """Return what was asked in [since, until) and is in the log with its words, but not what a report asked."""
        asked = (answers.c.created_at >= since) & (answers.c.created_at < until)
        query = (
            sa.select(answers.c.id, answers.c.question, answers.c.abstained, answers.c.support)
            .add_columns((answers.c.conversation.is_not(None) | answers.c.quoting).label("follows"))
            .where(asked & answers.c.question.is_not(None) & answers.c.facts.is_not(None))
            .where(answers.c.reported.is_not(True))
            .order_by(answers.c.created_at, answers.c.id)
        )
        found_in: dict[str, list[str]] = {}
        with self._read() as connection:
            rows = connection.execute(query).all()
            for ids in slices([row.id for row in rows]):
                mine = sa.select(answer_collections).where(answer_collections.c.answer_id.in_(ids))
                for row in connection.execute(mine.order_by(answer_collections.c.collection_id)):
                    found_in.setdefault(row.answer_id, []).append(row.collection_id)
        return [
            Exchange(r.id, r.question, bool(r.abstained), r.support, tuple(found_in.get(r.id, ())), bool(r.follows))
            for r in rows
        ]

    def _sees_answer(self, answer_id: sa.ColumnElement[str] = answers.c.id) -> sa.ColumnElement[bool]:
        """The condition that the caller sees every collection in which an answer looked, and that there is one."""
        if self._caller.collections is None:
            return sa.true()
        theirs = answer_collections.c.answer_id == answer_id
        foreign = theirs & ~self._sees(answer_collections.c.collection_id)
        return sa.exists().where(theirs) & ~sa.exists().where(foreign)

    # -- events of answers that can be resumed -----------------------------------------------------------------------

    def add_events(self, answer_id: str, events: Sequence[Told]) -> bool:
        """Keep more events of an answer, or none as a sign of life; False if it was deleted or lost its texts."""
        with self._write() as connection:
            at = self._database.now(connection)
            alive = (answers.c.id == answer_id) & answers.c.purged_at.is_(None)
            if not connection.execute(answers.update().where(alive).values(seen_at=at)).rowcount:
                return False
            rows = [
                {
                    "answer_id": answer_id, "number": event.number, "created_at": at, "name": event.name,
                    "data": packed_text(event.data),
                }
                for event in events
            ]  # fmt: skip
            if rows:
                connection.execute(answer_events.insert(), rows)
        return True

    def events(self, answer_id: str, after: int) -> Followed:
        """Return the events of an answer behind number ``after``; raises `NotFound` if it has none that are kept."""
        mine = answer_events.c.answer_id == answer_id
        later = sa.select(answer_events).where(mine & (answer_events.c.number > after))
        newest = sa.select(answer_events.c.name).where(mine).order_by(answer_events.c.number.desc()).limit(1)
        with self._read() as connection:
            visible = (answers.c.id == answer_id) & self._sees_answer()
            seen_at = connection.scalar(sa.select(answers.c.seen_at).where(visible))
            rows = connection.execute(later.order_by(answer_events.c.number)).all()
            last = connection.scalar(newest)
            at = self._database.now(connection)
        silent = 0.0 if seen_at is None else (at - seen_at).total_seconds()
        if seen_at is None or (last is None and silent > DEAD_SECONDS):
            raise NotFound("There are no events of such an answer; they are kept for some minutes after its end.")
        found = tuple(Told(row.number, row.name, unpacked_text(row.data)) for row in rows)
        return Followed(found, last in LAST, silent)

    def forget_events(self, seconds: float) -> int:
        """Remove the events of answers whose last one is older than so many seconds; return how many."""
        with self._read() as connection:
            at = self._database.now(connection).timestamp() - seconds
            newest = sa.select(answer_events.c.answer_id).group_by(answer_events.c.answer_id)
            stale = sa.func.max(answer_events.c.created_at) < datetime.fromtimestamp(at, now().tzinfo)
            old = connection.scalars(newest.having(stale)).all()
        if not old:
            return 0
        with self._write() as connection:
            gone = (answer_events.delete().where(answer_events.c.answer_id.in_(ids)) for ids in slices(old))
            return sum(connection.execute(statement).rowcount for statement in gone)


def drop_texts(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> int:
    """Take all text from the answers for which a condition holds, and from what was said of them; return how many."""
    locked = _locked(connection, condition)
    for ids in slices(locked):
        mine = answers.c.id.in_(ids)
        connection.execute(answers.update().where(mine).values({**_NO_TEXTS, "purged_at": now()}))
        connection.execute(answer_events.delete().where(answer_events.c.answer_id.in_(ids)))
        connection.execute(answer_feedback.update().where(answer_feedback.c.answer_id.in_(ids)).values(comment=None))
    return len(locked)


def looked_in(collection_id: str) -> sa.ColumnElement[bool]:
    """The condition of an answer for which a collection was searched."""
    here = answer_collections.c.collection_id == collection_id
    return answers.c.id.in_(sa.select(answer_collections.c.answer_id).where(here))


def rests_on(document_ids: sa.Select[Any]) -> sa.ColumnElement[bool]:
    """The condition of an answer that saw one of some documents."""
    those = answer_documents.c.document_id.in_(document_ids)
    return answers.c.id.in_(sa.select(answer_documents.c.answer_id).where(those))


def drop_texts_of(connection: sa.Connection, collection_id: str, gone: Some[tuple[str, int]]) -> int:
    """Take the texts from the answers that saw one of some versions, given by document and number.

    Those that were given a conversation in the same collection go too: nobody knows whose words that quoted.
    """
    if not gone:
        return 0
    mine: set[str] = set()
    for ids in slices(sorted({document_id for document_id, _ in gone})):
        those = sa.select(answer_documents).where(answer_documents.c.document_id.in_(ids))
        mine |= {row.answer_id for row in connection.execute(those) if (row.document_id, row.version) in gone}
    dropped = drop_texts(connection, looked_in(collection_id) & answers.c.quoting & answers.c.texts.is_not(None))
    return dropped + sum(drop_texts(connection, answers.c.id.in_(ids)) for ids in slices(sorted(mine)))


def _no_answer(answer_id: str) -> NotFound:
    return NotFound(f"There is no answer {answer_id[:64]!r} in the log; `citewell answers list` shows what there is.")


def _row(entry: Entry) -> dict[str, Any]:
    logged = entry.logged
    texts = logged.texts
    return {
        "id": logged.id, "created_at": logged.created_at, "conversation": logged.conversation,
        "cache_key": entry.cache_key, "basis": entry.basis, "cached": logged.cached, "generator": logged.generator,
        "abstained": logged.abstained, "quoting": entry.quoting, "reported": entry.reported,
        "support": least_support(texts.answer) if texts else None,
        "question": readable(texts.plan.question) if texts and texts.plan else None,
        "text": readable(texts.answer.text) if texts else None,
        "texts": packed_text(to_json(texts)) if texts else None,
        "facts": packed_text(to_json(logged.facts)) if logged.facts else None, "purged_at": logged.purged_at,
    }  # fmt: skip


def _links(entry: Entry, documents: Some[tuple[str, int]]) -> dict[sa.Table, list[dict[str, Any]]]:
    answer = {"answer_id": entry.logged.id}
    return {
        answer_collections: [answer | {"collection_id": found} for found in sorted(set(entry.collections))],
        answer_documents: [answer | {"document_id": found, "version": n} for found, n in sorted(documents)],
    }


def _put(connection: sa.Connection, row: dict[str, Any]) -> None:
    """Write a row in place of the one that was opened for it, whose texts may have had to go already."""
    mine = answers.c.id == row["id"]
    found = connection.execute(sa.select(answers.c.purged_at).where(mine).with_for_update()).one_or_none()
    if found is None:
        connection.execute(answers.insert(), row)
        return
    if found.purged_at is not None:
        row = row | {**_NO_TEXTS, "purged_at": found.purged_at}
    connection.execute(answers.update().where(mine).values({k: v for k, v in row.items() if k != "id"}))


def _shared(connection: sa.Connection, entries: Sequence[Entry]) -> set[str]:
    """Keep the collections of some answers from being purged until the transaction ends; return those still there."""
    wanted = sorted({found for entry in entries for found in entry.collections})
    return {found for found in wanted if share_collection(connection, found)}


def all_there(connection: sa.Connection, documents: Some[tuple[str, int]]) -> bool:
    """Say whether none of some versions was purged."""
    there: set[tuple[str, int]] = set()
    for ids in slices(sorted({document_id for document_id, _ in documents})):
        found = sa.select(versions.c.document_id, versions.c.number).where(versions.c.document_id.in_(ids))
        there |= {(row.document_id, row.number) for row in connection.execute(found)}
    return there.issuperset(documents)


def _said_before(connection: sa.Connection, logged: Logged) -> frozenset[tuple[str, int]]:
    """Return the documents that the earlier turns of an answer's conversation saw, but for those without texts."""
    if logged.conversation is None:
        return frozenset()
    before = (answers.c.conversation == logged.conversation) & (answers.c.created_at < logged.created_at)
    turns = sa.select(answers.c.id).where(before & answers.c.texts.is_not(None))
    links = sa.select(answer_documents.c.document_id, answer_documents.c.version).distinct()
    rows = connection.execute(links.where(answer_documents.c.answer_id.in_(turns)))
    return frozenset((row.document_id, row.version) for row in rows)


def _lost_a_turn(connection: sa.Connection, logged: Logged) -> bool:
    """Say whether an answer of the same conversation has lost its texts since this one was begun."""
    if logged.conversation is None:
        return False
    lost = (answers.c.conversation == logged.conversation) & (answers.c.purged_at >= logged.created_at)
    return connection.scalar(sa.select(answers.c.id).where(lost).limit(1)) is not None


def _remove(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> int:
    locked = _locked(connection, condition)
    for ids in slices(locked):
        for table in (answer_events, answer_feedback, answer_documents, answer_collections):
            connection.execute(table.delete().where(table.c.answer_id.in_(ids)))
        connection.execute(answers.delete().where(answers.c.id.in_(ids)))
    return len(locked)


def _locked(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> list[str]:
    """Lock the answers for which a condition holds, in one order for all, and return their ids."""
    return [*connection.scalars(sa.select(answers.c.id).where(condition).order_by(answers.c.id).with_for_update())]
