"""A run on Locust's side: its controller and workers, levels and windows, files, and its end."""
