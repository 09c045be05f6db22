"""What can be wrong with a run: each finding with its remedy, and the verdict that they make."""
