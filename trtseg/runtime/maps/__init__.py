"""From the networks' maps to a mask: where they look, which one is shown, what is changed."""
