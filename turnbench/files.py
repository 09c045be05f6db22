"""Opens the files that people name: the one place, so that what is no file is refused at once everywhere.

Opening a pipe waits for a writer, reading a device may never end, and a socket cannot be opened at all.
"""

from __future__ import annotations

import errno
import stat
from io import BufferedReader
from pathlib import Path

_NO_FILES = (
    (stat.S_ISDIR, errno.EISDIR, "a folder, not a file"),
    (stat.S_ISFIFO, errno.ESPIPE, "a pipe, not a file; write what comes through it into one"),
    (stat.S_ISSOCK, errno.ENXIO, "a socket, not a file"),
    (stat.S_ISCHR, errno.ENODEV, "a device, not a file"),
    (stat.S_ISBLK, errno.ENODEV, "a device, not a file"),
)


def regular_file(path: str | Path) -> Path:
    """The path of a file that is there. Raises OSError, whose `strerror` says what it is instead, and
    ValueError for a name that none can have."""
    found = Path(path)
    mode = found.stat().st_mode
    for is_so, number, what in _NO_FILES:
        if is_so(mode):
            raise OSError(number, what, str(path))
    return found


def open_file(path: str | Path) -> BufferedReader:
    """A file to read, as bytes. Raises what `regular_file` does, and OSError where it may not be read."""
    return regular_file(path).open("rb")
