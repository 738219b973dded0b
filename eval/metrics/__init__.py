"""Metrics of finished runs, measured on the saved images."""
