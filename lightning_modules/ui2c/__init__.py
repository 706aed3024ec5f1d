"""UI2C: unified intra and inter coding, two frames at once (arXiv 2510.14431)."""
