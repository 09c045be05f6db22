"""Percentiles and 95 % intervals of turns that depend on each other; analysis and --until share them."""
