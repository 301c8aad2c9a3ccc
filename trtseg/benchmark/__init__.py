"""Measuring latency: what a click and an encode cost on this machine, and the floor below."""
