"""Rate-distortion curves while training: of each validation, and the reference."""
