"""The emulator fitted to a real run."""
