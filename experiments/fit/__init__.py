"""Train a codec through every stage of its schedule."""
