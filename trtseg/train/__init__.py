"""Training of latent diversity's networks: `python -m trtseg.train CONFIG.json`."""
