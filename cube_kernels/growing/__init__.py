"""What training of cells that grow is made of: the sample pool, seeds, damage, losses, gradients of one size.

Small functions on plain tensors, for a loop of one's own, Lightning or ``transformers.Trainer``. Whatever is drawn
comes from the ``torch.Generator`` that is handed over; torch's global random state is neither read nor changed. States
are ``[B, D, H, W, C]``, or have any other axes between the batch and the channels.

::

    layer = rules.growing_nca((1, 40, 40))
    draws = torch.Generator().manual_seed(0)
    pool = SamplePool(seed_cell(layer.lattice), 1024, draws)
    losses = lambda x: (x[..., :4] - target).square().mean((1, 2, 3, 4))
    for _ in range(2000):
        places, x = pool.sample(8, losses, damage=ball)
        x = layer(x, steps=random_steps(64, 96, draws), seed=random_seed(draws))
        optimizer.zero_grad()
        losses(x).mean().backward()
        normalize_gradients(layer.parameters())
        optimizer.step()
        pool.update(places, x)

Source of all but the losses: Mordvintsev, Randazzo, Niklasson and Levin, "Growing Neural Cellular Automata", Distill,
2020.
"""

from cube_kernels.growing.damage import ball, box, half_space
from cube_kernels.growing.losses import overflow_loss, spectral_loss
from cube_kernels.growing.pool import PoolBatch, SamplePool
from cube_kernels.growing.training import normalize_gradients, random_seed, random_steps, seed_cell

__all__ = [
    "PoolBatch",
    "SamplePool",
    "ball",
    "box",
    "half_space",
    "normalize_gradients",
    "overflow_loss",
    "random_seed",
    "random_steps",
    "seed_cell",
    "spectral_loss",
]
