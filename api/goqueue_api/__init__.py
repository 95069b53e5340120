"""The REST API of GoQueue."""
