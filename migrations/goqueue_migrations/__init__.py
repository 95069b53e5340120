"""The schema's history, for Alembic. Run it with `goqueue migrate`."""

from typing import Final

REVISIONS: Final = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009")
"""All revisions, oldest first, so that a process checks the schema without Alembic. A test compares them."""
