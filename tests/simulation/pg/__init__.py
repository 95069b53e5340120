"""A PostgreSQL in memory: interprets the engine's own statements with READ COMMITTED semantics."""
