"""What an execution can end with other than a result."""

from __future__ import annotations


class UnsupportedError(Exception):
    """The kernel holds something that this interpreter does not execute. Nothing ran."""


class KernelError(Exception):
    """A check failed while a kernel ran. The machine adds where: kernel, instruction, block and thread."""

    def __init__(self, reason: str, lane: int | None = None):
        super().__init__(reason)
        self.reason = reason
        self.lane = lane
