"""The REST API. `app.create_app` builds it, `server.serve` runs it."""
