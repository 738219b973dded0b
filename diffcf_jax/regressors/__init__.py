"""Regressors from outside: read, prepared, and checked."""
