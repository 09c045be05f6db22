"""A run directory as a table of turns: their levels, and what each one measured."""
