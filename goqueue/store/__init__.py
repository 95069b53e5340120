"""Where jobs live: PostgreSQL. Every SQL statement of the engine stands in this package."""
