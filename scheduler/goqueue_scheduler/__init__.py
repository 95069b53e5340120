"""The scheduler process: one leader among any number dispatches, rescues, fires cron schedules and prunes."""
