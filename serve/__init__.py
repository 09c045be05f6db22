"""What answers: the model catalogue, launchers and the emulator. Always driven as a process."""
