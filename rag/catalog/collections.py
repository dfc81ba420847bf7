"""Collections in the catalog: made, listed, counted, deleted."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

import sqlalchemy as sa

from rag.catalog.answers import drop_texts, looked_in, rests_on
from rag.catalog.golden import drop_golden
from rag.catalog.locks import own_collections
from rag.catalog.part import Part, now, slices
from rag.errors import BadInput, Conflict, Forbidden, Misconfigured, NotFound
from rag.records import Collection
from rag.schema import (
    bands,
    batch_files,
    batches,
    chunks,
    collections,
    documents,
    golden_questions,
    parses,
    promotions,
    seals,
    texts,
    tunings,
    vectors,
    versions,
)

COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Collections(Part):
    """The part of the catalog that knows collections."""

    def create_collection(self, name: str) -> Collection:
        """Create an empty collection.

        Raises `BadInput` for a bad name, `Conflict` if the name is taken, and `Forbidden`, whether it is or not, for a
        name that the caller would not see.
        """
        if not COLLECTION_NAME.fullmatch(name):
            raise BadInput(
                f"{name[:100]!r} is no collection name; use 1 to 100 letters, digits, dots, dashes and underscores, "
                "a letter or digit first."
            )
        if not self._caller.may_see(name):
            raise Forbidden(f"This key is limited to other collections than {name!r}; an admin can make it.")
        made = Collection(secrets.token_hex(16), name, now())
        row = {"id": made.id, "name": name, "created_at": made.created_at, "commits": 0, "last_seq": 0}
        try:
            with self._write() as connection:
                connection.execute(collections.insert(), row)
                self._note(connection, "collection.create", made.id, made.id)
        except sa.exc.IntegrityError as error:
            raise Conflict(f"There is a collection named {name!r} already.") from error
        return made

    def collection(self, name: str, *, counted: bool = True) -> Collection:
        """Return the collection of this name; raises `NotFound`. Counting takes time that a question need not pay."""
        condition = collections.c.name == name
        if counted:
            found = self._collections(condition)
        else:
            key = ("name", name, self._caller.collections)
            found = self.at_the_moment(key, lambda: self._collections(condition, counted=False))
        if not found:
            raise NotFound(f"There is no collection named {name[:100]!r}; `citewell collections list` shows them.")
        return found[0]

    def collection_name(self, collection_id: str) -> str:
        """Return the name of the collection with this id; raises `NotFound` if it was deleted."""
        mine = (collections.c.id == collection_id) & self._sees(collections.c.id)
        with self._read() as connection:
            name = connection.scalar(sa.select(collections.c.name).where(mine))
        if name is None:
            raise NotFound("The collection was deleted.")
        return str(name)

    def ensure_collection(self, name: str) -> Collection:
        """Return the collection of this name, creating it if it is not there."""
        try:
            return self.collection(name)
        except NotFound:
            pass
        try:
            return self.create_collection(name)
        except Conflict:  # another process was faster
            return self.collection(name)

    def list_collections(self, *, counted: bool = True) -> list[Collection]:
        """Return all collections in the order of their names, see `collection` for ``counted``."""
        found = self._collections(sa.true(), counted=counted)
        return sorted(found, key=lambda collection: collection.name)

    def _collections(self, condition: sa.ColumnElement[bool], *, counted: bool = True) -> list[Collection]:
        condition &= self._sees(collections.c.id)
        if not counted:
            with self._read() as connection:
                bare = connection.execute(sa.select(collections).where(condition)).all()
            return [Collection(r.id, r.name, r.created_at, r.embedder, tuning=r.tuning_id) for r in bare]
        live = documents.c.live_version_id.is_not(None) & (documents.c.collection_id == collections.c.id)
        count = sa.select(sa.func.count()).select_from(documents).where(live).scalar_subquery()
        passages = (
            sa.select(sa.func.coalesce(sa.func.sum(versions.c.passages), 0))
            .select_from(versions.join(documents, documents.c.live_version_id == versions.c.id))
            .where(documents.c.collection_id == collections.c.id)
            .scalar_subquery()
        )
        query = sa.select(collections, count.label("n"), passages.label("p")).where(condition)
        with self._read() as connection:
            rows = connection.execute(query).all()
        return [Collection(r.id, r.name, r.created_at, r.embedder, int(r.n), int(r.p), r.tuning_id) for r in rows]

    def delete_collection(self, collection_id: str) -> list[str]:
        """Remove a collection with all its rows in one transaction; return the digests that no document needs now.

        Its golden questions go with it, and answers that looked in it lose their texts.
        """
        of_documents = sa.select(documents.c.id).where(documents.c.collection_id == collection_id)
        of_batches = sa.select(batches.c.id).where(batches.c.collection_id == collection_id)
        of_texts = sa.select(texts.c.id).where(texts.c.collection_id == collection_id)
        with self._database.erasing() as connection:
            own_collections(connection, collection_id)
            self._note(connection, "collection.delete", collection_id, collection_id)
            mine = versions.c.document_id.in_(of_documents)
            shas = set(connection.scalars(sa.select(versions.c.sha256).where(mine)))
            drop_texts(connection, looked_in(collection_id) | rests_on(of_documents))
            drop_golden(connection, golden_questions.c.collection_id == collection_id)
            connection.execute(vectors.delete().where(vectors.c.text_id.in_(of_texts)))
            connection.execute(batch_files.delete().where(batch_files.c.batch_id.in_(of_batches)))
            for table in (promotions, tunings, seals, chunks, bands, texts, batches):
                connection.execute(table.delete().where(table.c.collection_id == collection_id))
            connection.execute(versions.delete().where(mine))
            connection.execute(documents.delete().where(documents.c.collection_id == collection_id))
            connection.execute(collections.delete().where(collections.c.id == collection_id))
            remove_unused_parses(connection)
            kept = [sha for some in slices(sorted(shas)) for sha in needed(connection, some)]
        return sorted(shas.difference(kept))

    def check_embedder(self, connection: sa.Connection, collection_id: str, embedder: str) -> None:
        """Let the first vectors of a collection decide its embedder; raises `Misconfigured` for those of another."""
        mine = collections.c.id == collection_id
        found = connection.scalar(sa.select(collections.c.embedder).where(mine))
        if found is None:
            connection.execute(collections.update().where(mine).values(embedder=embedder))
        elif found != embedder:
            raise wrong_embedder(found, embedder)


def needed(connection: sa.Connection, shas: Sequence[str]) -> set[str]:
    """Return those of some digests of originals that a version has."""
    return set(connection.scalars(sa.select(versions.c.sha256).where(versions.c.sha256.in_(shas))))


def unused_parse() -> sa.ColumnElement[bool]:
    """The condition of a row of ``parses`` that no version was made from."""
    return ~sa.exists().where(versions.c.parse_id == parses.c.id)


def remove_unused_parses(connection: sa.Connection) -> int:
    """Remove the parses that no version was made from; return how many."""
    query = sa.select(parses.c.id).where(unused_parse()).order_by(parses.c.id).with_for_update()
    locked = connection.scalars(query).all()  # then the condition is asked again: one may be wanted by now
    return sum(
        connection.execute(parses.delete().where(parses.c.id.in_(ids) & unused_parse())).rowcount
        for ids in slices(locked)
    )


def wrong_embedder(found: str, configured: str) -> Misconfigured:
    """The sentence for a collection whose vectors come from another embedder than the configured one."""
    return Misconfigured(
        f"The collection was embedded with {found!r}, but the settings choose {configured!r}; "
        "set embedder.model back, or ingest the documents into a new collection."
    )
