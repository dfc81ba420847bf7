"""The first tables: collections, documents, versions, parses, chunks, vectors, seals."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "collections",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("embedder", sa.String(200)),
        sa.Column("commits", sa.Integer, nullable=False),
        sa.Column("last_seq", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_collections"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "documents",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("collection_id", sa.String(32), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("deleted_at", sa.DateTime),
        sa.Column("live_version_id", sa.String(32)),
        sa.PrimaryKeyConstraint("id", name="pk_documents"),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name="fk_documents_collection_id"),
        sa.UniqueConstraint("collection_id", "name", name="uq_documents_collection_id_name"),
    )
    op.create_table(
        "versions",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("document_id", sa.String(32), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("stage", sa.String(20), nullable=False),
        sa.Column("progress", sa.Float, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("error_code", sa.String(50)),
        sa.Column("lease_owner", sa.String(100)),
        sa.Column("lease_until", sa.DateTime),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("ready_at", sa.DateTime),
        sa.Column("media_type", sa.String(200)),
        sa.Column("title", sa.Text),
        sa.Column("pages", sa.Integer),
        sa.Column("elements", sa.Integer, nullable=False),
        sa.Column("passages", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_versions"),
        sa.ForeignKeyConstraint(["document_id"], ["documents.id"], name="fk_versions_document_id"),
        sa.UniqueConstraint("document_id", "number", name="uq_versions_document_id_number"),
    )
    op.create_index("ix_versions_sha256", "versions", ["sha256"])
    op.create_index("ix_versions_queue", "versions", ["state", "created_at"])
    op.create_table(
        "parses",
        sa.Column("version_id", sa.String(32), nullable=False),
        sa.Column("text", sa.LargeBinary, nullable=False),
        sa.Column("elements", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("version_id", name="pk_parses"),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_parses_version_id"),
    )
    op.create_table(
        "chunks",
        sa.Column("collection_id", sa.String(32), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("version_id", sa.String(32), nullable=False),
        sa.Column("start", sa.Integer, nullable=False),
        sa.Column("end", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("page", sa.Integer),
        sa.Column("section", sa.JSON, nullable=False),
        sa.Column("tokens", sa.Integer, nullable=False),
        sa.Column("context", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("retired_commit", sa.Integer),
        sa.PrimaryKeyConstraint("collection_id", "seq", name="pk_chunks"),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name="fk_chunks_collection_id"),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_chunks_version_id"),
    )
    op.create_index("ix_chunks_id", "chunks", ["id"])
    op.create_index("ix_chunks_version_id", "chunks", ["version_id"])
    retired = sa.text("retired_commit IS NOT NULL")
    op.create_index(
        "ix_chunks_retired",
        "chunks",
        ["collection_id", "retired_commit"],
        sqlite_where=retired,
        postgresql_where=retired,
    )
    op.create_table(
        "vectors",
        sa.Column("collection_id", sa.String(32), nullable=False),
        sa.Column("embedder", sa.String(200), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("collection_id", "embedder", "seq", name="pk_vectors"),
        sa.ForeignKeyConstraint(
            ["collection_id", "seq"], ["chunks.collection_id", "chunks.seq"], name="fk_vectors_chunk"
        ),
    )
    op.create_table(
        "seals",
        sa.Column("collection_id", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("space", sa.String(200), nullable=False),
        sa.Column("folder", sa.String(200), nullable=False),
        sa.Column("last_seq", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("collection_id", "kind", "space", name="pk_seals"),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name="fk_seals_collection_id"),
    )
