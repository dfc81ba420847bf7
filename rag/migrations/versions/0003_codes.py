"""Vectors are kept in half the bytes, and the codes of the tokens beside them."""

import numpy as np
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

STEP = 1000


def upgrade() -> None:
    op.add_column("vectors", sa.Column("codes", sa.LargeBinary))
    bind = op.get_bind()
    vectors = sa.Table("vectors", sa.MetaData(), autoload_with=bind)
    mine = (vectors.c.text_id == sa.bindparam("t")) & (vectors.c.embedder == sa.bindparam("e"))
    halve = vectors.update().where(mine).values(vector=sa.bindparam("v"))
    last = bind.execute(sa.select(sa.func.max(vectors.c.text_id))).scalar() or 0
    for start in range(0, last + 1, STEP):
        here = (vectors.c.text_id >= start) & (vectors.c.text_id < start + STEP)
        rows = bind.execute(sa.select(vectors.c.text_id, vectors.c.embedder, vectors.c.vector).where(here)).all()
        halved = [
            {"t": row.text_id, "e": row.embedder, "v": np.frombuffer(row.vector, "<f4").astype("<f2").tobytes()}
            for row in rows
        ]
        if halved:
            bind.execute(halve, halved)
