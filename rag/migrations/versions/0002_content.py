"""Texts, vectors and parses are kept by content; the queue gets pauses, turns and batches."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
STEP = 1000


def upgrade() -> None:
    _widen()
    _create()
    _move_parses()
    _move_chunks()
    for table in ("old_vectors", "old_chunks", "old_parses"):
        op.drop_table(table)


def _widen() -> None:
    with op.batch_alter_table("documents") as table:
        table.alter_column("name", type_=NAME, existing_nullable=False)
        table.add_column(sa.Column("parent_id", sa.String(32)))
        table.add_column(sa.Column("source", sa.Text))
    op.create_index("ix_documents_parent_id", "documents", ["parent_id"])
    op.drop_index("ix_versions_queue", "versions")
    with op.batch_alter_table("versions") as table:
        table.add_column(sa.Column("deaths", sa.Integer, nullable=False, server_default="0"))
        table.add_column(sa.Column("not_before", sa.DateTime))
        table.add_column(sa.Column("turn", sa.BigInteger, nullable=False, server_default="0"))
        table.add_column(sa.Column("batch_id", sa.String(32)))
        table.add_column(sa.Column("parse_id", sa.String(32)))
        table.add_column(sa.Column("language", sa.String(10)))
        table.alter_column("ready_at", new_column_name="ended_at")
    with op.batch_alter_table("versions") as table:
        table.alter_column("deaths", server_default=None)
        table.alter_column("turn", server_default=None)
    op.create_index("ix_versions_queue", "versions", ["state", "turn", "created_at"])
    op.create_index("ix_versions_batch_id", "versions", ["batch_id"])
    op.create_index("ix_versions_parse_id", "versions", ["parse_id"])
    for index in ("ix_chunks_id", "ix_chunks_version_id", "ix_chunks_retired"):
        op.drop_index(index, "chunks")
    for table in ("parses", "chunks", "vectors"):
        op.rename_table(table, f"old_{table}")
        if op.get_bind().dialect.name == "postgresql":
            op.execute(f"ALTER TABLE old_{table} RENAME CONSTRAINT pk_{table} TO pk_old_{table}")


def _create() -> None:
    op.create_table(
        "parses",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("text", sa.LargeBinary, nullable=False),
        sa.Column("elements", sa.LargeBinary, nullable=False),
        sa.Column("media_type", sa.String(200), nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("pages", sa.Integer),
        sa.Column("language", sa.String(10)),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("members", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_parses"),
    )
    op.create_table(
        "texts",
        sa.Column("id", NUMBER, nullable=False, autoincrement=True),
        sa.Column("collection_id", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(32), nullable=False),
        sa.Column("context", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("tokens", sa.Integer, nullable=False),
        sa.Column("like_id", NUMBER),
        sa.PrimaryKeyConstraint("id", name="pk_texts"),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name="fk_texts_collection_id"),
        sa.UniqueConstraint("collection_id", "digest", name="uq_texts_collection_id_digest"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "bands",
        sa.Column("collection_id", sa.String(32), nullable=False),
        sa.Column("band", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("text_id", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("collection_id", "band", "text_id", name="pk_bands"),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name="fk_bands_collection_id"),
        sa.ForeignKeyConstraint(["text_id"], ["texts.id"], name="fk_bands_text_id"),
    )
    op.create_index("ix_bands_text_id", "bands", ["text_id"])
    op.create_table(
        "chunks",
        sa.Column("collection_id", sa.String(32), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("version_id", sa.String(32)),
        sa.Column("text_id", NUMBER),
        sa.Column("start", sa.Integer, nullable=False),
        sa.Column("end", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("page", sa.Integer),
        sa.Column("section", sa.JSON, nullable=False),
        sa.Column("retired_commit", sa.Integer),
        sa.PrimaryKeyConstraint("collection_id", "seq", name="pk_chunks"),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name="fk_chunks_collection_id"),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_chunks_version_id"),
        sa.ForeignKeyConstraint(["text_id"], ["texts.id"], name="fk_chunks_text_id"),
    )
    op.create_index("ix_chunks_id", "chunks", ["id"])
    op.create_index("ix_chunks_version_id", "chunks", ["version_id"])
    op.create_index("ix_chunks_text_id", "chunks", ["text_id"])
    retired = sa.text("retired_commit IS NOT NULL")
    columns = ["collection_id", "retired_commit"]
    op.create_index("ix_chunks_retired", "chunks", columns, sqlite_where=retired, postgresql_where=retired)
    op.create_table(
        "vectors",
        sa.Column("text_id", NUMBER, nullable=False, autoincrement=False),
        sa.Column("embedder", sa.String(200), nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("text_id", "embedder", name="pk_vectors"),
        sa.ForeignKeyConstraint(["text_id"], ["texts.id"], name="fk_vectors_text_id"),
    )
    op.create_table(
        "batches",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("collection_id", sa.String(32), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("files", sa.Integer, nullable=False),
        sa.Column("last_turn", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name="fk_batches_collection_id"),
    )
    op.create_index("ix_batches_collection_id", "batches", ["collection_id"])
    op.create_table(
        "batch_files",
        sa.Column("batch_id", sa.String(32), nullable=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("version_id", sa.String(32)),
        sa.Column("error_code", sa.String(50)),
        sa.Column("error", sa.Text),
        sa.PrimaryKeyConstraint("batch_id", "number", name="pk_batch_files"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_batch_files_batch_id"),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_batch_files_version_id"),
    )
    op.create_index("ix_batch_files_version_id", "batch_files", ["version_id"])


def _move_parses() -> None:
    """A parse gets the id of the one version that it was made for."""
    op.execute(
        "INSERT INTO parses (id, text, elements, media_type, title, pages, metadata, members) "
        "SELECT p.version_id, p.text, p.elements, COALESCE(v.media_type, 'text/plain'), v.title, v.pages, v.metadata, "
        "'[]' FROM old_parses p JOIN versions v ON v.id = p.version_id"
    )
    op.execute("UPDATE versions SET parse_id = id WHERE id IN (SELECT id FROM parses)")


def _move_chunks() -> None:
    """Every text once, with the digest that the product gives it; rows and vectors point to it."""
    bind = op.get_bind()
    metadata = sa.MetaData()
    names = ("texts", "chunks", "vectors", "old_chunks", "old_vectors")
    texts, chunks, vectors, old, old_vectors = (sa.Table(name, metadata, autoload_with=bind) for name in names)
    ids: dict[tuple[str, str], int] = {}
    vectored: set[tuple[int, str]] = set()
    kept = [c.name for c in chunks.c if c.name != "text_id"]
    rows = bind.execute(sa.select(old).order_by(old.c.collection_id, old.c.seq)).all()
    for some in _batched(rows):
        moved = []
        for row in some:
            key = (row.collection_id, _digest(row.context, row.text))
            if key not in ids:
                text = {"collection_id": key[0], "digest": key[1], "context": row.context, "text": row.text}
                made = bind.execute(texts.insert().values(**text, tokens=row.tokens))
                ids[key] = int(made.inserted_primary_key[0])  # type: ignore[index]
            moved.append({name: getattr(row, name) for name in kept} | {"text_id": ids[key]})
        bind.execute(chunks.insert(), moved)
    pairs = sa.select(chunks.c.text_id, old_vectors.c.embedder, old_vectors.c.vector).join(
        chunks, (chunks.c.collection_id == old_vectors.c.collection_id) & (chunks.c.seq == old_vectors.c.seq)
    )
    for row in bind.execute(pairs).all():
        if (row.text_id, row.embedder) not in vectored:
            vectored.add((row.text_id, row.embedder))
            bind.execute(vectors.insert().values(text_id=row.text_id, embedder=row.embedder, vector=row.vector))


def _batched(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), STEP):
        yield rows[start : start + STEP]


def _digest(*parts: str) -> str:
    """As `rag.records.digest` was when this migration was written."""
    h = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        h.update(len(data).to_bytes(8, "big"))
        h.update(data)
    return h.hexdigest()[:32]
