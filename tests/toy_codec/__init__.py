"""Toy: frames in few levels."""
