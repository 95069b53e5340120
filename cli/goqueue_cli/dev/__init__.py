"""`goqueue dev`: all of GoQueue on one machine, on an embedded PostgreSQL and Valkey."""
