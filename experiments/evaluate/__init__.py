"""Code sequences to real bytes, decode them elsewhere, compare with the source."""
