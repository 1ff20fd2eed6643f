"""The shared rollout as one operation of autograd, for backends that compute derivatives themselves.

It does by hand what :mod:`cube_kernels.sharding.rollout` leaves to autograd, and so computes and keeps no more than one
process does of its lattice: the last steps of a segment are not run again, halos are exchanged in place, and gradients
go from chunk to chunk in float32. It is differentiable once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from cube_kernels.automaton import Automaton, StepWeights
from cube_kernels.backends.contract import Call, Gradients, Kernels, Schedule
from cube_kernels.sharding.blocks import WideBlock
from cube_kernels.sharding.steps import Plan


class Job(NamedTuple):
    """All of a shared rollout but its tensors."""

    plan: Plan
    kernels: Kernels
    automaton: Automaton | None
    """Of the widened block; None for one without cells."""
