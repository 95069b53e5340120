"""The `goqueue` command: puts the parts together."""
