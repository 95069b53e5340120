"""A small shop that ships orders and writes receipts in the background. See README.md."""
