"""The operating commands of `goqueue`: enqueue, look, steer. Imported by the command that is called, never by a process."""
