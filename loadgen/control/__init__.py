"""A run on Locust's side: its conductor and workers, levels and windows, files, and its end."""
