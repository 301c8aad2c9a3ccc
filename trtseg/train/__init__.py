"""Training of latent diversity's networks: `trtseg train CONFIG.json`."""
