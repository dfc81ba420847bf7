"""Collections have tunings, one of which may be in force."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("collections", sa.Column("tuning_id", sa.String(32)))
    op.create_table(
        "tunings",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("collection_id", sa.String(32), sa.ForeignKey("collections.id"), nullable=False, index=True),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("embedder", sa.String(200), nullable=False),
        sa.Column("dense_weight", sa.Float, nullable=False),
        sa.Column("late_weight", sa.Float, nullable=False),
        sa.Column("adapter", sa.LargeBinary),
        sa.Column("projection", sa.LargeBinary),
        sa.Column("report", sa.JSON, nullable=False),
    )
    op.create_table(
        "promotions",
        sa.Column("collection_id", sa.String(32), sa.ForeignKey("collections.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("tuning_id", sa.String(32), sa.ForeignKey("tunings.id"), nullable=False),
        sa.Column("promoted_at", sa.DateTime, nullable=False),
    )
