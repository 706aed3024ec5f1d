"""DHVC 2.0: hierarchical predictive coding with progressive scales (2410.02598)."""
