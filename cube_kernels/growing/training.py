"""Small things of a training loop."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from cube_kernels.lattice import Lattice
from cube_kernels.value import check_kind, check_positive


def seed_cell(lattice: Lattice, first: int = 3) -> Tensor:
    """One cell in the middle of nothing, whose channels from ``first`` on are 1: opacity and all that cells tell each
    other, but no color.

    Returns:
        ``[D, H, W, C]`` in torch's default dtype, on the CPU.

    Raises:
        ValueError, TypeError: a ``first`` that is no channel of the lattice.

    Example::

        grown = layer(seed_cell(layer.lattice)[None], seed=7)
    """
    first = check_positive("seed_cell", "first", first, least=0)
    if first >= lattice.channels:
        raise ValueError(f"seed_cell: first is {first}, but the lattice has {lattice.channels} channels")
    state = torch.zeros(lattice.state_shape)
    state[tuple(size // 2 for size in lattice.shape)][first:] = 1
    return state


def random_steps(least: int, most: int, generator: torch.Generator) -> int:
    """How many steps a rollout of training takes, ``least`` to ``most``, both included: the authors' 64 to 96 let no
    cell count them.

    Raises:
        ValueError, TypeError: a negative number, or a ``most`` below ``least``.

    Example::

        x = layer(x, steps=random_steps(64, 96, draws), seed=random_seed(draws))
    """
    check_kind(generator, torch.Generator)
    least = check_positive("random_steps", "least", least, least=0)
    most = check_positive("random_steps", "most", most, least=least)
    return int(torch.randint(least, most + 1, (), generator=generator, device=generator.device))


def random_seed(generator: torch.Generator) -> int:
    """A seed for a call's fire mask, in ``[0, 2⁶³)``."""
    check_kind(generator, torch.Generator)
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))


def normalize_gradients(parameters: Iterable[Tensor]) -> None:
    """Divides the gradient of each parameter by its norm, in place, between ``backward()`` and the optimizer's step.
    Through many steps of a rule gradients grow and shrink by orders of magnitude; each parameter then takes steps of
    one size, as the authors train. Parameters without a gradient are left alone.

    Example::

        loss.backward()
        normalize_gradients(layer.parameters())
        optimizer.step()
    """
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad /= parameter.grad.norm().clamp(min=torch.finfo(parameter.dtype).tiny)
