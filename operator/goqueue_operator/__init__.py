"""The Kubernetes operator of GoQueue."""
