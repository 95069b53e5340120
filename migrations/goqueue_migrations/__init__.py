"""The schema's history, for Alembic. Run it with `goqueue migrate`."""

from typing import Final

REVISIONS: Final = ("0001", "0002")
"""All revisions, oldest first; a test compares them with the scripts. So a process checks the schema without Alembic."""
