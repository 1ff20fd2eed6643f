"""Cells of other families, composed of the public :func:`cube_kernels.perceive` and torch's own modules.

They are examples of rules of one's own as much as modules to use: the neighborhood, the boundary and the backend are
the lattice's and the operator's, all else is plain PyTorch, differentiable any number of times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from cube_kernels.call.dispatch import BACKENDS
from cube_kernels.call.door import check_state
from cube_kernels.functional import absorb, perceive
from cube_kernels.lattice import Lattice
from cube_kernels.precision import agree
from cube_kernels.recompute import recomputed
from cube_kernels.torch_internals import transforming
from cube_kernels.value import check_choice, check_flag, check_positive


class Cell(nn.Module):
    """A cell of one's own, ``[B, D, H, W, C] → [B, D, H, W, C]``: a subclass writes :meth:`step` in plain PyTorch, and
    sees its neighborhood by :meth:`perceive`, or in any other way.

    >>> import torch
    >>> from cube_kernels import Lattice, fixed_filters
    >>> class Diffusion(Cell):
    ...     def step(self, x):
    ...         return x + 0.1 * self.perceive(x, fixed_filters(("laplacian",), self.lattice))
    >>> Diffusion(Lattice((1, 64, 64), 3))(torch.randn(2, 1, 64, 64, 3), steps=10).shape
    torch.Size([2, 1, 64, 64, 3])

    Args:
        lattice: size, channels, neighborhood and boundary.
        checkpoint: whether the backward pass keeps the states before each step alone and computes the rest again.
        backend: of the perception; see :func:`cube_kernels.rollout`.

    Raises:
        ValueError, TypeError: an unknown backend; a checkpoint that is no flag.
    """

    def __init__(self, lattice: Lattice, checkpoint: bool = True, backend: str = "auto") -> None:
        super().__init__()
        check_choice(type(self).__name__, "backend", backend, ["auto", *BACKENDS])
        self.checkpoint = check_flag(type(self).__name__, "checkpoint", checkpoint)
        self.lattice, self.backend = lattice, backend

    def step(self, x: Tensor) -> Tensor:
        """One step, ``[B, D, H, W, C]`` to the same, but for what the absorbing boundary takes."""
        raise NotImplementedError(f"{type(self).__name__}: a Cell writes its step(x)")

    def perceive(self, x: Tensor, filters: Tensor | None = None) -> Tensor:
        """:func:`cube_kernels.perceive` on this cell's lattice and backend."""
        return perceive(x, self.lattice, filters, backend=self.backend)

    def _advance(self, x: Tensor) -> Tensor:
        x = self.step(x)
        return absorb(x, self.lattice) if self.lattice.boundary == "absorbing" else x

    def forward(self, x: Tensor, steps: int = 1) -> Tensor:
        """
        Args:
            x: states ``[B, D, H, W, C]`` in the parameters' dtype (under autocast any that it casts) and on their
                device.
            steps: how many steps; 0 returns ``x``.

        Returns:
            The last states, like ``x``.

        Raises:
            ValueError, TypeError: a shape, dtype or number of steps that does not fit.
        """
        owner, parameter = type(self).__name__, next(self.parameters(), None)
        steps = check_positive(owner, "steps", steps, least=0)
        check_state(x, self.lattice, owner)
        if parameter is not None and not agree(x, parameter):
            raise TypeError(f"{owner}: x is {x.dtype}, but the parameters are {parameter.dtype}; they must agree")
        advance = _with_tensors_of_now(self) if self.checkpoint and not transforming() else self._advance
        for _ in range(steps):
            x = recomputed(advance, x) if self.checkpoint else advance(x)
        return x

    def extra_repr(self) -> str:
        return f"{self.lattice}, checkpoint={self.checkpoint}, backend={self.backend!r}"


class _Advance(nn.Module):
    """A cell's step as a module, which ``functional_call`` takes."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        return self.cell._advance(x)


def _with_tensors_of_now(cell: Cell) -> Callable[[Tensor], Tensor]:
    """Its step with the parameters and buffers that it has now: within a ``functional_call`` they are others than when
    the backward pass computes the step again."""
    step = _Advance(cell)
    tensors = {**dict(step.named_parameters()), **dict(step.named_buffers())}
    return lambda x: functional_call(step, tensors, (x,))


class GMLPCell(Cell):
    """A gMLP block whose spatial gate sees the neighborhood (Liu, Dai, So and Le: "Pay Attention to MLPs", NeurIPS
    2021), as the step of a cell::

        u, v = split(gelu(W_in norm(x) + b_in))       C → 2·hidden, in two halves
        v ← perceive(norm(v)) + b                     one learned filter a channel
        x ← x + W_out (u · v) + b_out                 hidden → C

    The paper's gate mixes all positions of a sequence by one matrix; this one mixes a neighborhood by the same filter
    everywhere, so it takes any size of lattice and reaches further with every step. As in the paper, filters start
    near zero and ``b`` at one, so that a new cell is a plain MLP. Both norms are over channels.

    Args:
        lattice: size, channels ``C``, at least 2, neighborhood and boundary of the states.
        hidden: width of each half, at least 2.
        checkpoint: whether to keep nothing but the states between the steps for the backward pass, which computes each
            step again (``torch.utils.checkpoint``): one state a step of memory, for one more forward pass of time.
            Gradients are the same. ``torch.compile`` and ``torch.func`` choose for themselves what to keep.
        backend: of the perception; see :func:`cube_kernels.rollout`.

    Raises:
        ValueError, TypeError: fewer than 2 channels or hidden ones, whose norm would be constant; an unknown backend.
    """

    def __init__(self, lattice: Lattice, hidden: int, checkpoint: bool = True, backend: str = "auto") -> None:
        super().__init__(lattice, checkpoint, backend)
        check_positive("GMLPCell", "lattice.channels", lattice.channels, least=2)
        hidden = check_positive("GMLPCell", "hidden", hidden, least=2)
        self.gate_lattice = replace(lattice, channels=hidden)
        self.norm = nn.LayerNorm(lattice.channels)
        self.project_in = nn.Linear(lattice.channels, 2 * hidden)
        self.gate_norm = nn.LayerNorm(hidden)
        self.gate_filters = nn.Parameter(torch.empty(1, len(lattice.offsets), hidden))
        self.gate_bias = nn.Parameter(torch.empty(hidden))
        self.project_out = nn.Linear(hidden, lattice.channels)
        nn.init.normal_(self.gate_filters, std=1e-3)
        nn.init.ones_(self.gate_bias)

    def step(self, x: Tensor) -> Tensor:
        u, v = F.gelu(self.project_in(self.norm(x)), approximate="tanh").chunk(2, dim=-1)
        v = perceive(self.gate_norm(v), self.gate_lattice, self.gate_filters, backend=self.backend) + self.gate_bias
        return x + self.project_out(u * v)


class GRUCell(Cell):
    """A gated recurrent unit (Cho et al., EMNLP 2014) at every cell, whose input is what its neighborhood shows, in
    the spirit of convolutional GRUs (Ballas, Yao, Pal and Courville, ICLR 2016)::

        p = perceive(h)                                learned filters
        r = σ(W_ir p + b_ir + W_hr h + b_hr)           reset gate
        z = σ(W_iz p + b_iz + W_hz h + b_hz)           update gate
        n = tanh(W_in p + b_in + r · (W_hn h + b_hn))  candidate
        h ← (1 − z) · n + z · h

    These are the formulas of ``torch.nn.GRUCell``, which computes them. In a convolutional GRU the reset gate of a
    neighbor weighs what is seen of it; here the cell's own gate weighs what it keeps of itself, so that a step
    perceives once. States stay within ±1 if they start there.

    Args:
        lattice: size, channels, neighborhood and boundary of the states ``h``.
        filters: learned filters a channel.
        checkpoint, backend: see :class:`GMLPCell`.

    Raises:
        ValueError, TypeError: fewer than one filter, an unknown backend.
    """

    def __init__(self, lattice: Lattice, filters: int = 1, checkpoint: bool = True, backend: str = "auto") -> None:
        super().__init__(lattice, checkpoint, backend)
        filters = check_positive("GRUCell", "filters", filters)
        self.filters = nn.Parameter(torch.empty(filters, len(lattice.offsets), lattice.channels))
        self.unit = nn.GRUCell(filters * lattice.channels, lattice.channels)
        nn.init.normal_(self.filters, std=len(lattice.offsets) ** -0.5)

    def step(self, x: Tensor) -> Tensor:
        percepts = self.perceive(x, self.filters)
        return self.unit(percepts.flatten(0, 3), x.flatten(0, 3)).view(x.shape)
