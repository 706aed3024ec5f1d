"""Videos decoded once into a store that training reads fast."""
