"""Golden questions with what they rest on, and runs of the report with what came of their questions."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("answers", sa.Column("support", sa.Float))
    op.add_column("answers", sa.Column("reported", sa.Boolean))
    op.create_table(
        "golden_questions",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("collection_id", sa.String(32), sa.ForeignKey("collections.id"), nullable=False, index=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("confirmed_at", sa.DateTime, nullable=False),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("reference", sa.Text),
        sa.Column("answerable", sa.Boolean, nullable=False),
        sa.Column("quoting", sa.Boolean, nullable=False),
        sa.Column("purged_at", sa.DateTime),
    )
    op.create_table(
        "golden_tags",
        sa.Column("question_id", sa.String(32), sa.ForeignKey("golden_questions.id"), primary_key=True),
        sa.Column("tag", sa.String(100), primary_key=True),
    )
    op.create_table(
        "golden_documents",
        sa.Column("question_id", sa.String(32), sa.ForeignKey("golden_questions.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("text", sa.Text),
        sa.Column("document_id", sa.String(32), index=True),
        sa.Column("version", sa.Integer),
        sa.Column("sha256", sa.String(64)),
    )
    op.create_table(
        "reports",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("created_at", sa.DateTime, nullable=False, index=True),
        sa.Column("started_at", sa.DateTime),
        sa.Column("ended_at", sa.DateTime),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("due_at", sa.DateTime),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("settings_digest", sa.String(32)),
        sa.Column("lease_owner", sa.String(100)),
        sa.Column("lease_until", sa.DateTime),
        sa.Column("claims", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("summary", sa.LargeBinary),
        sa.Column("error", sa.Text),
        sa.UniqueConstraint("due_at", name="uq_reports_due_at"),
    )
    op.create_table(
        "report_items",
        sa.Column("report_id", sa.String(32), sa.ForeignKey("reports.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("answer_id", sa.String(32)),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
