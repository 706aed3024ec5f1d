"""Videos decoded once into a store of few large files, from which training reads."""
