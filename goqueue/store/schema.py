"""The `jobs` table as SQLAlchemy sees it: for callers who enqueue inside their own transaction.

The migrations make the table; a test holds this description against them.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, DateTime, Integer, MetaData, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, REAL

metadata: Final = MetaData()

JOBS: Final = Table(
    "jobs",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("queue", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("payload", JSONB, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("max_retries", Integer, nullable=False),
    Column("available_at", DateTime(timezone=True), nullable=False),
    Column("result", JSONB),
    Column("error", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    Column("priority", SmallInteger, nullable=False),
    Column("lease", Integer, nullable=False),
    Column("worker_id", BigInteger),
    Column("timeout", REAL),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("failed_at", DateTime(timezone=True)),
    Column("dispatch_at", DateTime(timezone=True)),
    Column("cancel_requested_at", DateTime(timezone=True)),
    Column("progress", REAL),
    Column("unique_key", Text),
    Column("active_key", Text),
    Column("source", Text, nullable=False),
    Column("source_key", Text),
    Column("trace_context", Text),
    Column("tenant", Text),
    Column("round", Integer),
    Column("deaths", SmallInteger),
)
