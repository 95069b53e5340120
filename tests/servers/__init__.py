"""Real servers for the tests: PostgreSQL, Valkey, an SMTP server, Stripe's own mock."""
