"""The schema's history, for Alembic. Run it with `goqueue migrate`."""
