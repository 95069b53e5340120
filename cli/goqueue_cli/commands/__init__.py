"""The operating commands of `goqueue`: enqueue, look, steer. Only a command that is called is imported."""
