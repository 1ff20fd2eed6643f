"""The sample pool: states that training left behind, and begins from again."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from cube_kernels.value import check_kind, check_positive


class PoolBatch(NamedTuple):
    """States drawn from a pool, and where they lay there."""

    places: Tensor  # [batch]
    x: Tensor  # [batch, ..., C]


class SamplePool:
    """States that a rule has grown so far, from which training goes on: so it learns to stay what it has become, over
    many more steps than one rollout takes (Mordvintsev et al., 2020).

    All states begin as the seed. A run that is to be resumed saves ``states`` and the generator's state.

    Args:
        seed: one state ``[D, H, W, C]``, or of any other axes; its device and dtype are the pool's.
        size: states in the pool; the authors take 1024.
        generator: what the places, and damage, are drawn from.

    Raises:
        ValueError, TypeError: a size below 1, a generator that is none.
    """

    def __init__(self, seed: Tensor, size: int, generator: torch.Generator) -> None:
        check_kind(generator, torch.Generator)
        size = check_positive("SamplePool", "size", size)
        self.seed, self.generator = seed.detach().clone(), generator
        self.states = self.seed.expand(size, *seed.shape).clone()

    def sample(
        self,
        batch: int,
        losses: Callable[[Tensor], Tensor] | None = None,
        damage: Callable[[int, torch.Size, torch.Generator], Tensor] | None = None,
        damaged: int = 3,
    ) -> PoolBatch:
        """Draws states, each at most once. The first of them is replaced by the seed, so that growing from it is never
        forgotten, and the last ``damaged`` lose the cells that ``damage`` says, which become zero.

        Args:
            batch: how many states.
            losses: how bad each state is, ``[batch, ..., C] → [batch]``. With it, the worst comes first and the best
                last; without, their order is drawn.
            damage: :func:`cube_kernels.growing.ball` or another of the shapes, ``partial(ball, radius=(0.2, 0.5))``, or
                a function of one's own; None for no damage.
            damaged: how many states are damaged.

        Returns:
            ``places`` and ``x``; :meth:`update` takes the first.

        Raises:
            ValueError, TypeError: a batch larger than the pool, or too small for the seed and the damaged, losses of
                another shape.
        """
        batch = check_positive("SamplePool.sample", "batch", batch)
        damaged = 0 if damage is None else check_positive("SamplePool.sample", "damaged", damaged)
        if batch > len(self.states):
            raise ValueError(f"SamplePool.sample: batch is {batch}, but the pool has {len(self.states)} states")
        if damaged >= batch:
            raise ValueError(
                f"SamplePool.sample: damaged is {damaged}, and one state is replaced by the seed, but batch is {batch}"
            )
        draws = self.generator
        places = torch.randperm(len(self.states), generator=draws, device=draws.device)[:batch].to(self.states.device)
        if losses is not None:
            with torch.no_grad():
                found = losses(self.states[places])
            if found.shape != (batch,):
                raise ValueError(
                    f"SamplePool.sample: losses gives shape {tuple(found.shape)}; it takes one a state, {(batch,)}"
                )
            places = places[found.argsort(descending=True)]  # NaN counts as the largest
        x = self.states[places]
        x[0] = self.seed
        if damage is not None:
            lost = damage(damaged, self.seed.shape[:-1], draws).to(x.device)
            x[-damaged:] = x[-damaged:].masked_fill(lost[..., None], 0)
        return PoolBatch(places, x)

    def update(self, places: Tensor, x: Tensor) -> None:
        """Puts back what became of the states.

        Raises:
            ValueError: a shape that is not the batch's.
        """
        expected = (len(places), *self.seed.shape)
        if x.shape != expected:
            raise ValueError(f"SamplePool.update: x has shape {tuple(x.shape)}; it takes {expected}")
        self.states[places] = x.detach().to(self.states)
