"""What the networks of `trtseg.nn.network` are made of."""
