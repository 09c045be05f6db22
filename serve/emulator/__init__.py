"""An OpenAI-compatible server without a model, with the timing of one."""

from turnbench import __version__

VERSION = f"turnbench-emulator/{__version__}"
"""What it calls itself in answers and descriptions."""
