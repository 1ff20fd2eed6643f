"""Binary files read from the front, where what is missing is an error that names the byte."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from cube3d.errors import UserError

BOM = b"\xef\xbb\xbf"
"""The byte order mark that some editors put before UTF-8."""


class Cursor:
    """A file that is mapped into memory, not loaded, and a position in it.

    Raises:
        UserError: the file cannot be read, or is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.position = path, 0
        try:
            with path.open("rb") as file:
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise UserError(f"{path}: is empty") from error

    def skip(self, count: int, what: str) -> int:
        """Passes over ``count`` bytes and returns where they begin."""
        start, left = self.position, len(self.data) - self.position
        if count < 0 or count > left:
            raise self.error(f"truncated or damaged: {what} takes {count} bytes from here, the file has {left}")
        self.position += count
        return start

    def numbers(self, form: str, what: str) -> tuple[Any, ...]:
        """Little-endian numbers, in :mod:`struct`'s letters."""
        form = "<" + form
        return struct.unpack_from(form, self.data, self.skip(struct.calcsize(form), what))

    def until(self, end: bytes, what: str) -> bytes:
        """What stands before the next ``end``, which is passed over, too."""
        found = self.data.find(end, self.position)
        if found < 0:
            raise self.error(f"truncated or damaged: {what} has no end ({end!r})")
        start, self.position = self.position, found + len(end)
        return self.data[start:found]

    def at_end(self) -> bool:
        return self.position == len(self.data)

    def error(self, message: str) -> UserError:
        return UserError(f"{self.path}: byte {self.position}: {message}")
