"""Whole experiments: run, measure, compare."""
