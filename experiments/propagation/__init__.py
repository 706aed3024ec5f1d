"""``propagation``: how far one frame's errors reach into later ones."""
