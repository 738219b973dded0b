"""Compares this package with recorded inputs and outputs of the PyTorch originals."""
