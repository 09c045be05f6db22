"""Means of censored waits, and whether a series stayed what it was: nothing here knows of a run."""
