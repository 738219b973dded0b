"""What only CPUs need: faster convolutions and attention for XLA's CPU compiler."""
