"""Alembic's entry: run the migrations over the connection that the record has open."""

from alembic import context

from server.record.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=False,  # the caller's transaction holds all of it
)
context.run_migrations()
