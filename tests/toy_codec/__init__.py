"""Toy: each frame alone, in patches."""
