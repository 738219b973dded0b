"""Configs for explaining, and in `train` for training; installed as `diffcf_jax.configs`."""
