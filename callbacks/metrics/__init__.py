"""Metrics: pure functions, and the one table that names them."""
