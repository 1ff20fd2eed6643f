"""Published systems of continuous fields that are no :class:`cube_kernels.Rule`, as cells: reaction and diffusion,
waves, Lenia. :mod:`cube_kernels.rules` has them by name, beside those that are one."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cube_kernels.cells import Cell
from cube_kernels.filters import fixed_filters
from cube_kernels.functional import perceive
from cube_kernels.lattice import Lattice, Offset
from cube_kernels.value import check_positive, check_range, check_tuple

Shape = tuple[int, int, int]


def along_axes(shape: Shape) -> tuple[Offset, ...]:
    """A cell and its neighbors along the axes of more than one cell: all that a Laplacian looks at."""
    space = Lattice(shape, 1)
    return tuple(o for o in space.offsets if all(size > 1 or not s for size, s in zip(space.shape, o, strict=True)))


def axes_of(lattice: Lattice) -> int:
    return sum(size > 1 for size in lattice.shape)


class _GrayScott(Cell):
    def __init__(self, lattice: Lattice, feed: float, kill: float, diffusion: tuple[float, float], step: float) -> None:
        super().__init__(lattice)
        self.feed, self.kill, self.time_step = feed, kill, step
        self.register_buffer("stencil", fixed_filters(("laplacian",), lattice) * torch.tensor(diffusion))
        self.stencil: Tensor

    def step(self, x: Tensor) -> Tensor:
        u, v = x.unbind(-1)
        reaction = u * v * v
        change = torch.stack([self.feed * (1 - u) - reaction, reaction - (self.feed + self.kill) * v], dim=-1)
        return x + self.time_step * (change + self.perceive(x, self.stencil))


def gray_scott(
    shape: Shape,
    feed: float,
    kill: float,
    diffusion: tuple[float, float] = (0.16, 0.08),
    time_step: float = 1.0,
    boundary: str = "periodic",
) -> Cell:
    """Reaction and diffusion of two substances (Gray and Scott, Chemical Engineering Science 39(6), 1984; Pearson:
    "Complex Patterns in a Simple System", Science 261, 1993), by explicit Euler steps: ``v`` turns ``u`` into more of
    itself, ``u`` is fed, and ``v`` dies.

    ``u' = Du·Δu − u·v² + feed·(1 − u)`` and ``v' = Dv·Δv + u·v² − (feed + kill)·v``

    The cell takes states ``[B, D, H, W, 2]``, ``u`` and ``v``. ``u = 1, v = 0`` stays as it is; a few cells of
    ``u = 0.5, v = 0.25`` set it off. In the plane ``feed=0.0545, kill=0.062`` grow a coral.

    Args:
        shape: cells along each axis, ``(D, H, W)``; those of one cell take no part.
        feed, kill: at least 0.
        diffusion: ``(Du, Dv)`` in cells² per unit of time.
        time_step: the time that a step takes.
        boundary: see :class:`cube_kernels.Lattice`.

    Raises:
        ValueError, TypeError: a negative number, an unstable step (``2·axes·time_step`` times the larger diffusion
            above 1, by von Neumann's analysis), and those of :class:`cube_kernels.Lattice`.

    Example::

        coral = rules.gray_scott((1, 128, 128), feed=0.0545, kill=0.062)(x, steps=8000)
    """
    rates = [
        check_range("gray_scott", "each diffusion", d, 0, math.inf)
        for d in check_tuple("gray_scott", "diffusion", diffusion)
    ]
    if len(rates) != 2:
        raise ValueError(f"gray_scott: diffusion is {diffusion}; it takes one number for u and one for v")
    feed, kill, time_step = (
        check_range("gray_scott", name, value, 0, math.inf)
        for name, value in (("feed", feed), ("kill", kill), ("time_step", time_step))
    )
    lattice = Lattice(shape, 2, along_axes(shape), boundary=boundary)
    _check_stable("gray_scott", "2·axes·time_step·diffusion", 2 * axes_of(lattice) * time_step * max(rates))
    return _GrayScott(lattice, feed, kill, (rates[0], rates[1]), time_step)


class _Wave(Cell):
    def __init__(self, lattice: Lattice, courant: float) -> None:
        super().__init__(lattice)
        self.height = replace(lattice, channels=1)
        self.register_buffer("stencil", courant**2 * fixed_filters(("laplacian",), self.height))
        self.stencil: Tensor

    def step(self, x: Tensor) -> Tensor:
        now, before = x[..., :1], x[..., 1:]
        bend = perceive(now.contiguous(), self.height, self.stencil, backend=self.backend)
        return torch.cat([2 * now - before + bend, now], dim=-1)


def wave(shape: Shape, speed: float, time_step: float, boundary: str = "replicate") -> Cell:
    """The wave equation ``u'' = speed²·Δu`` by leapfrog steps (Courant, Friedrichs and Lewy, Mathematische Annalen 100,
    1928).

    The cell takes states ``[B, D, H, W, 2]``: ``u``, and ``u`` a step before; equal, they are at rest.

    Args:
        shape: cells along each axis, ``(D, H, W)``; those of one cell take no part.
        speed: in cells per unit of time.
        time_step: the time that a step takes.
        boundary: see :class:`cube_kernels.Lattice`: at ``"walls"`` the height is held at 0, at ``"replicate"`` it is
            free, and ``"absorbing"`` swallows what comes.

    Raises:
        ValueError, TypeError: a negative number, an unstable step (``speed·time_step·√axes`` above 1), and those of
            :class:`cube_kernels.Lattice`.

    Example::

        pond = rules.wave((1, 64, 64), speed=1.0, time_step=0.5)(x, steps=100)
    """
    speed = check_range("wave", "speed", speed, 0, math.inf)
    time_step = check_range("wave", "time_step", time_step, 0, math.inf)
    lattice = Lattice(shape, 2, along_axes(shape), boundary=boundary)
    _check_stable("wave", "speed·time_step·√axes", speed * time_step * math.sqrt(axes_of(lattice)))
    return _Wave(lattice, speed * time_step)


class _Lenia(Cell):
    def __init__(self, lattice: Lattice, kernel: Tensor, middle: float, width: float, time_step: float) -> None:
        super().__init__(lattice)
        self.middle, self.width, self.time_step = middle, width, time_step
        self.register_buffer("kernel", kernel)
        self.kernel: Tensor

    def step(self, x: Tensor) -> Tensor:
        distance = (self.perceive(x, self.kernel) - self.middle) / self.width
        growth = 2 * torch.exp(-distance.square() / 2) - 1
        return (x + self.time_step * growth).clamp(0, 1)


def lenia(
    shape: Shape,
    radius: int = 13,
    middle: float = 0.15,
    width: float = 0.015,
    time_step: float = 0.1,
    peaks: tuple[float, ...] = (1.0,),
    boundary: str = "periodic",
) -> Cell:
    """Lenia, continuous life, in the plane (Chan: "Lenia: Biology of Artificial Life", Complex Systems 28(3), 2019) and
    in space (Chan: "Lenia and Expanded Universe", ALIFE 2020).

    ``x ← clip(x + time_step·g(K ∗ x), 0, 1)``, where ``g(u) = 2·exp(−(u − middle)²/(2·width²)) − 1`` and the kernel
    ``K``, of sum 1, has shells of the heights ``peaks``, each ``exp(4 − 1/(r·(1 − r)))`` for ``r`` from 0 to 1 across
    it.

    The cell takes states ``[B, D, H, W, 1]`` in [0, 1]. The sum over the kernel's cells is taken one by one, so a large
    radius costs what it holds: 516 cells in the plane, 9,092 in space, for a radius of 13.

    Args:
        shape: cells along each axis, ``(D, H, W)``; those of one cell take no part.
        radius: of the kernel, in cells, at least 2; the default and those below are Orbium's.
        middle, width: where growth is greatest, the paper's μ, and how fast it falls off, its σ.
        time_step: of each step, in (0, 1].
        peaks: of the shells from inside out, the paper's β.
        boundary: see :class:`cube_kernels.Lattice`.

    Raises:
        ValueError, TypeError: numbers out of their range, peaks without a positive one, and those of
            :class:`cube_kernels.Lattice`.

    Example::

        later = rules.lenia((1, 64, 64))(x, steps=50)
    """
    radius = check_positive("lenia", "radius", radius, least=2)
    middle = check_range("lenia", "middle", middle, 0, 1)
    width = check_range("lenia", "width", width, 1e-6, math.inf)
    time_step = check_range("lenia", "time_step", time_step, 1e-6, 1)
    heights = [check_range("lenia", "each of peaks", peak, 0, 1) for peak in check_tuple("lenia", "peaks", peaks)]
    kernel = _shells(Lattice(shape, 1), radius, heights)
    if not kernel:
        raise ValueError(f"lenia: no cell lies on a shell: radius is {radius} and peaks {peaks}; take more of either")
    lattice = Lattice(shape, 1, tuple(kernel), boundary=boundary)
    weights = torch.tensor(list(kernel.values()), dtype=torch.float64)
    bank = (weights / weights.sum()).view(1, -1, 1).to(torch.get_default_dtype())
    return _Lenia(lattice, bank, middle, width, time_step)


def _shells(lattice: Lattice, radius: int, heights: list[float]) -> dict[Offset, float]:
    """The kernel, unnormalized: of each offset that it weighs, how much."""
    reach = [range(-radius, radius + 1) if size > 1 else range(1) for size in lattice.shape]
    kernel: dict[Any, float] = {}
    for offset in itertools.product(*reach):
        shell, r = divmod(len(heights) * math.hypot(*offset) / radius, 1)
        if shell < len(heights) and r > 0 and heights[int(shell)] > 0:
            kernel[offset] = heights[int(shell)] * math.exp(4 - 1 / (r * (1 - r)))
    return {offset: weight for offset, weight in kernel.items() if weight > 0}


def _check_stable(owner: str, name: str, value: float) -> None:
    if not value <= 1:
        raise ValueError(
            f"{owner}: {name} is {value}; a step is stable up to 1 only: take a smaller time_step, and more steps"
        )
