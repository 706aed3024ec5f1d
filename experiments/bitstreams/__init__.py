"""Between frames and bitstream files."""
