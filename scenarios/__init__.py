"""What is said: tasks and mixes, and the seeded plan of one conversation."""
