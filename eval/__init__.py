"""Evaluation of finished runs."""
