"""The engine, a process of its own: people, their conversations and turns, and who waits for what."""
