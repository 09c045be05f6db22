"""turnbench in Locust's processes: hooks, the start form, and what of its own is silenced."""
