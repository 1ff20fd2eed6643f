"""The fire mask's random numbers: Philox4x32-10 (Salmon et al., SC 2011), a pure function of a counter and a key.

Every backend draws the same numbers, the backward pass draws them again, and no generator's state is read or
changed. Cell ``i`` of sample ``b`` at step ``t`` takes word ``i mod 4`` of the block at counter
``(i div 4 mod 2³², t, b, i div 2³⁴)`` under the key ``(seed mod 2³², seed div 2³²)``, and fires if the word is below
``fire_rate · 2³²``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cube_kernels.lattice import Lattice
from cube_kernels.tables import constant
from cube_kernels.value import check_positive

WORD = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
SEED_LIMIT = 2**63
COUNT_LIMIT = 2**31


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor | int, Tensor | int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four 32-bit words for each counter. Counters and words are int64 tensors of values below 2³², which broadcast
    against each other."""
    a, b, c, d = counter
    low, high = key
    for _ in range(ROUNDS):
        first, second = MULTIPLIERS[0] * a, MULTIPLIERS[1] * c  # modulo 2⁶⁴, of which every bit is right
        a, b, c, d = (second >> 32) & WORD ^ b ^ low, second & WORD, (first >> 32) & WORD ^ d ^ high, first & WORD
        low, high = (low + WEYL[0]) & WORD, (high + WEYL[1]) & WORD
    return a, b, c, d


def threshold(fire_rate: float) -> int:
    """A cell fires if its word is below this: ``⌊fire_rate · 2³²⌋``, all of them at rate 1."""
    return int(fire_rate * 2**32)


def check_counts(owner: str, steps: int, first_step: int, first_sample: int) -> list[int]:
    """The last two, if what a call counts from them stays a word."""
    first_step = check_positive(owner, "first_step", first_step, least=0)
    first_sample = check_positive(owner, "first_sample", first_sample, least=0)
    if first_step + steps > COUNT_LIMIT:
        raise ValueError(f"{owner}: first_step is {first_step} and steps is {steps}; together they are at most 2^31")
    if first_sample >= COUNT_LIMIT:
        raise ValueError(f"{owner}: first_sample is {first_sample}; it must be below 2^31")
    return [first_step, first_sample]


@constant
def cell_numbers(lattice: Lattice) -> np.ndarray[Any, Any]:
    """``[D, H, W]``, int64: each cell's number in the whole lattice."""
    d, h, w = (np.array(lattice.axis_places(axis), dtype=np.int64) for axis in range(3))
    _, height, width = lattice.whole
    return (d[:, None, None] * height + h[:, None]) * width + w


def fires(numbers: Tensor, batch: int, step: int, seed: int, fire_rate: float, first_sample: int = 0) -> Tensor:
    """Which cells of these numbers (int64 ``[cells]``) update in a step: bool ``[batch, cells]``."""
    device, blocks = numbers.device, numbers >> 2
    samples = first_sample + torch.arange(batch, device=device)[:, None]
    zero = torch.zeros((), dtype=torch.int64, device=device)
    # As a tensor: compiled, a seed is a symbol, and inductor takes `tensor ^ symbol` for one of floats (torch 2.13).
    key = torch.full((), seed, dtype=torch.int64, device=device)
    words = philox((blocks & WORD, zero + step, samples, blocks >> 32), (key & WORD, key >> 32))
    which = (numbers & 3).expand(batch, -1)
    word = torch.where(
        which < 2, torch.where(which == 0, words[0], words[1]), torch.where(which == 2, words[2], words[3])
    )
    return word < threshold(fire_rate)
