"""Percentiles, their intervals, and arrays of unequal rows: nothing here knows of a run."""
