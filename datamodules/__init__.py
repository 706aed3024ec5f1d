"""Where clips come from: sources, readers, colour, and the Lightning data module."""
