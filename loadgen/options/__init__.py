"""What was asked for, and whether it can be had: all that is checked before the first turn."""
