"""Test sequences: finding them, and reading them."""
