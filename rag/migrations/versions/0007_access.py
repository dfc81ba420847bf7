"""API keys, and the audit log of writes and deletes."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String(12), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("collections", sa.JSON),
        sa.Column("expires_at", sa.DateTime),
        sa.Column("revoked_at", sa.DateTime),
        sa.Column("used_at", sa.DateTime),
        sa.Column("earlier_digest", sa.String(64)),
        sa.Column("earlier_until", sa.DateTime),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("in_flight", sa.Integer),
        sa.Column("most_documents", sa.BigInteger),
        sa.Column("most_bytes", sa.BigInteger),
        sa.Column("documents", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("at", sa.DateTime, nullable=False, index=True),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("key_id", sa.String(12)),
        sa.Column("action", sa.String(50), nullable=False),
        sa.Column("collection", sa.String(200)),
        sa.Column("subject", sa.String(200)),
        sa.Column("request_id", sa.String(64)),
    )
