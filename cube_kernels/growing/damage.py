"""Shapes of damage: which cells are lost, as masks ``[count, *shape]``, True where a cell is.

An axis goes from -1 to 1, however many cells it has; one of a single cell takes no part. So a shape in space is a shape
in the plane as well: a ball is a disc there, a half space a half plane, a box a square. Its middle lies in the inner
half of each axis, as in the authors' notebook.

    x = x.masked_fill(ball(len(x), (1, 40, 40), draws)[..., None], 0.0)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cube_kernels.value import check_kind, check_positive, check_range, check_tuple

RADIUS = (0.1, 0.4)
"""The authors'."""


def ball(count: int, shape: Sequence[int], generator: torch.Generator, radius: tuple[float, float] = RADIUS) -> Tensor:
    """Balls, in the plane discs.

    Args:
        count: how many masks.
        shape: cells along each axis.
        generator: what middles and radii are drawn from; the masks are on its device.
        radius: the least and the largest; an axis is 2 long.

    Returns:
        bool ``[count, *shape]``.

    Raises:
        ValueError, TypeError: a negative count, a size below 1, radii that are no pair of ascending numbers.
    """
    from_middle = _from_middles("ball", count, shape, generator)
    return from_middle.square().sum(-1) < _sizes("ball", from_middle, generator, radius).square()


def box(count: int, shape: Sequence[int], generator: torch.Generator, radius: tuple[float, float] = RADIUS) -> Tensor:
    """Boxes, in the plane squares; ``radius`` is half an edge. All else as for :func:`ball`."""
    from_middle = _from_middles("box", count, shape, generator)
    return from_middle.abs().amax(-1) < _sizes("box", from_middle, generator, radius)


def half_space(count: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """All on one side of a plane of any direction, in the plane of a line. All else as for :func:`ball`."""
    from_middle = _from_middles("half_space", count, shape, generator)
    normal = torch.randn(count, len(shape), generator=generator, device=generator.device)
    return torch.einsum("b...a,ba->b...", from_middle, normal) > 0


def _from_middles(owner: str, count: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Where each cell lies as seen from a middle of each mask's own, ``[count, *shape, axes]``."""
    check_kind(generator, torch.Generator)
    count = check_positive(owner, "count", count, least=0)
    sizes = [check_positive(owner, "every size of shape", size) for size in check_tuple(owner, "shape", shape)]
    device = generator.device
    axes = [(2 * torch.arange(size, device=device) + 1 - size) / max(1, size - 1) for size in sizes]
    cells = torch.stack(torch.meshgrid(axes, indexing="ij"), dim=-1)
    middles = torch.rand(count, len(sizes), generator=generator, device=device) - 0.5
    middles *= torch.tensor([size > 1 for size in sizes], device=device)
    return cells - middles.view(count, *(1 for _ in sizes), len(sizes))


def _sizes(owner: str, like: Tensor, generator: torch.Generator, radius: tuple[float, float]) -> Tensor:
    """A radius for each mask, ``[count, 1, ..., 1]``."""
    ends = [check_range(owner, "each end of radius", end, 0, 4) for end in check_tuple(owner, "radius", radius)]
    if len(ends) != 2 or ends[0] > ends[1]:
        raise ValueError(f"{owner}: radius is {radius}; it takes the least and the largest, in this order")
    drawn = torch.rand(len(like), generator=generator, device=generator.device)
    return (ends[0] + (ends[1] - ends[0]) * drawn).view(-1, *(1 for _ in like.shape[1:-1]))
