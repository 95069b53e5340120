"""A real Kubernetes cluster for the tests: kind, and the images that go into it."""
