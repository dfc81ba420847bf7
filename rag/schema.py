"""The tables of the catalog, as SQLAlchemy describes them; ``rag/migrations`` makes them, ``rag/catalog.py`` uses them.

Knows no query and no connection. A test compares these tables with what the migrations build.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(column_0_N_label)s",
    }
)


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """A point in time: aware and in UTC on the Python side, naive UTC in the database."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.replace(tzinfo=UTC)


# `commits` grows with every change that a search can notice, `last_seq` with every chunk. Both are taken inside the
# writing transaction with this row locked, so that a reader who has seen n has seen everything up to n.
collections = sa.Table(
    "collections",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False, unique=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("embedder", sa.String(200)),
    sa.Column("commits", sa.Integer, nullable=False, default=0),
    sa.Column("last_seq", sa.Integer, nullable=False, default=0),
)

documents = sa.Table(
    "documents",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("collection_id", sa.ForeignKey("collections.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("deleted_at", UtcDateTime),
    sa.Column("live_version_id", sa.String(32)),
    sa.UniqueConstraint("collection_id", "name", name="uq_documents_collection_id_name"),
)

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("document_id", sa.ForeignKey("documents.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False, index=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("stage", sa.String(20), nullable=False),
    sa.Column("progress", sa.Float, nullable=False, default=0.0),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("error", sa.Text),
    sa.Column("error_code", sa.String(50)),
    sa.Column("lease_owner", sa.String(100)),
    sa.Column("lease_until", UtcDateTime),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("ready_at", UtcDateTime),
    sa.Column("media_type", sa.String(200)),
    sa.Column("title", sa.Text),
    sa.Column("pages", sa.Integer),
    sa.Column("elements", sa.Integer, nullable=False, default=0),
    sa.Column("passages", sa.Integer, nullable=False, default=0),
    sa.UniqueConstraint("document_id", "number", name="uq_versions_document_id_number"),
    sa.Index("ix_versions_queue", "state", "created_at"),
)

# What the parser made of a version: its parsed text and the places of its elements, both zlib-compressed.
parses = sa.Table(
    "parses",
    metadata,
    sa.Column("version_id", sa.ForeignKey("versions.id"), primary_key=True),
    sa.Column("text", sa.LargeBinary, nullable=False),
    sa.Column("elements", sa.LargeBinary, nullable=False),
)

chunks = sa.Table(
    "chunks",
    metadata,
    sa.Column("collection_id", sa.ForeignKey("collections.id"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("id", sa.String(32), nullable=False, index=True),
    sa.Column("version_id", sa.ForeignKey("versions.id"), nullable=False, index=True),
    sa.Column("start", sa.Integer, nullable=False),
    sa.Column("end", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("page", sa.Integer),
    sa.Column("section", sa.JSON, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Column("context", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("retired_commit", sa.Integer),
    # Of retired rows alone: as an index of all rows it would tempt the planner away from the primary key.
    sa.Index(
        "ix_chunks_retired",
        "collection_id",
        "retired_commit",
        sqlite_where=sa.text("retired_commit IS NOT NULL"),
        postgresql_where=sa.text("retired_commit IS NOT NULL"),
    ),
)

# One row of float32 for each chunk and embedder: two embedders can stand side by side while one replaces the other.
vectors = sa.Table(
    "vectors",
    metadata,
    sa.Column("collection_id", sa.String(32), primary_key=True),
    sa.Column("embedder", sa.String(200), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("vector", sa.LargeBinary, nullable=False),
    sa.ForeignKeyConstraint(["collection_id", "seq"], ["chunks.collection_id", "chunks.seq"], name="fk_vectors_chunk"),
)

# The sealed parts in force: one for each collection, kind of index and space (embedder or analyser).
seals = sa.Table(
    "seals",
    metadata,
    sa.Column("collection_id", sa.ForeignKey("collections.id"), primary_key=True),
    sa.Column("kind", sa.String(20), primary_key=True),
    sa.Column("space", sa.String(200), primary_key=True),
    sa.Column("folder", sa.String(200), nullable=False),
    sa.Column("last_seq", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)
