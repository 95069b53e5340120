"""The database schema of GoQueue, as Alembic migrations."""
