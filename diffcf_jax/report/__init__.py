"""The HTML report of a finished run, with its figures."""
