"""The worker process of GoQueue."""
