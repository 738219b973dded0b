"""Configs of the networks that `train.py` and `diffcf train` train."""
