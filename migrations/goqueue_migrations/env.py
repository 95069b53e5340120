"""Alembic's entry point: runs the migrations on the connection that `goqueue.store.migrate` hands over."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transaction_per_migration=True, version_table="goqueue_schema")
with context.begin_transaction():
    context.run_migrations()
