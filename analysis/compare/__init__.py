"""Runs beside each other: models in order, a run against its baseline, and how sure that is."""
