"""Answers are logged, with what they saw, what people think of them, and the events of those that can be resumed."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "answers",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("created_at", sa.DateTime, nullable=False, index=True),
        sa.Column("conversation", sa.String(64)),
        sa.Column("cache_key", sa.String(32), index=True),
        sa.Column("basis", sa.String(32)),
        sa.Column("cached", sa.Boolean, nullable=False),
        sa.Column("generator", sa.Text),
        sa.Column("abstained", sa.Boolean),
        sa.Column("quoting", sa.Boolean, nullable=False),
        sa.Column("question", sa.Text),
        sa.Column("text", sa.Text),
        sa.Column("texts", sa.LargeBinary),
        sa.Column("facts", sa.LargeBinary),
        sa.Column("purged_at", sa.DateTime),
        sa.Column("seen_at", sa.DateTime),
    )
    op.create_index("ix_answers_conversation_created_at", "answers", ["conversation", "created_at"])
    op.create_table(
        "answer_collections",
        sa.Column("answer_id", sa.String(32), sa.ForeignKey("answers.id"), primary_key=True),
        sa.Column("collection_id", sa.String(32), primary_key=True, index=True),
    )
    op.create_table(
        "answer_documents",
        sa.Column("answer_id", sa.String(32), sa.ForeignKey("answers.id"), primary_key=True),
        sa.Column("document_id", sa.String(32), primary_key=True, index=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    )
    op.create_table(
        "answer_feedback",
        sa.Column("answer_id", sa.String(32), sa.ForeignKey("answers.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("rating", sa.Float, nullable=False),
        sa.Column("claim", sa.Integer),
        sa.Column("comment", sa.Text),
    )
    op.create_table(
        "answer_events",
        sa.Column("answer_id", sa.String(32), sa.ForeignKey("answers.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("created_at", sa.DateTime, nullable=False, index=True),
        sa.Column("name", sa.String(20), nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
