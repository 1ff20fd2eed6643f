"""From a kernel's instructions to a program: a function of the machine for each, grouped into basic blocks.

Every instruction that is executed stands in one of this folder's modules above the function that decodes it, in the
notation of the ISA (see :func:`form`). What matches no form is refused when the kernel is loaded.
"""

from __future__ import annotations

from .program import Barrier, Branch, ClusterWait, Exit, Program, load

__all__ = ["Barrier", "Branch", "ClusterWait", "Exit", "Program", "load"]
