"""A small ordering service: it keeps its orders and announces each in the same database transaction."""
