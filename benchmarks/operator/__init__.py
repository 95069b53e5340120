"""Thousands of GoQueueJobs: the operator against a bare client that makes the same writes."""
