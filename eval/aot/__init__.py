"""Ahead-of-time compilation for a TPU topology, without a TPU, and what to expect of it."""

from .compile import compile_for

__all__ = ["compile_for"]
