"""VideoVAE: a latent codec on causal video VAEs, for perceptual quality."""
