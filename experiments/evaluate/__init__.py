"""Code sequences to real bytes, decode them elsewhere, and measure."""
