"""The worker process: fetches ready jobs, claims them, runs their handlers, writes how they ended."""
