"""What the built-in reader's log odds count in the searches of a collection that is tuned."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("tunings", sa.Column("reader_weight", sa.Float))
