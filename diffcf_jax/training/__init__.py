"""Training of every network."""
