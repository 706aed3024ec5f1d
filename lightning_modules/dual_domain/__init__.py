"""DualDomain: coding without error propagation, in pixels and latents (2512.10450)."""
