"""From what is asked for to a running server: its command, checks before it, and its life."""
