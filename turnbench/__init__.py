"""The floor of turnbench: what all rooms agree on, each definition once.

It imports nothing of ours. Its roofs, the command line (`turnbench.cli`) and the sweep (`turnbench.sweep`),
start the rooms and are imported by nothing.
"""

__version__ = "0.1.0"
