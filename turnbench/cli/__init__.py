"""The command `turnbench`: a roof over all rooms, over the same functions as `python -m ROOM`."""
