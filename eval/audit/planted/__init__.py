"""A benchmark of the audit: does it find what is planted, and only that?"""
