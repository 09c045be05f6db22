"""The engine, a process of its own: people, their conversations and turns, and all that is timed."""
