"""Image classifiers whose features the networks read."""
