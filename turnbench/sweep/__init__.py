"""Several models, served and loaded in turn, as one result."""
