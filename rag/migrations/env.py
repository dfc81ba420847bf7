"""Alembic enters here: runs the migrations on the connection that `rag.catalog` hands over."""

from alembic import context

from rag.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,
    render_as_batch=True,
)
context.run_migrations()
