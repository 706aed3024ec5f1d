"""Figures and tables, as every report draws them."""
