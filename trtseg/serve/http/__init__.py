"""The server: addresses, who may use them, and what they answer."""
