"""Runs compiled CUDA kernels (PTX) on the CPU, with checks. See README.md."""

from __future__ import annotations

from .errors import KernelError, UnsupportedError
from .instructions import Program, load
from .machine import launch
from .statistics import Statistics

__all__ = ["KernelError", "Program", "Statistics", "UnsupportedError", "launch", "load"]
