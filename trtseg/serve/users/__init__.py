"""The user study: people click until a wanted mask is reached, under methods they are not told
(LD section 5)."""
