"""How an axis of a lattice is cut into slabs, one a rank, and which planes of others a rank needs. Plain numbers."""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple


def even_sizes(size: int, ranks: int) -> tuple[int, ...]:
    """Planes of each rank, as ``torch.chunk`` and ``DTensor`` cut: ``⌈size / ranks⌉`` each, the last ones fewer or
    none."""
    each = -(-size // ranks)
    return tuple(min(each, max(size - rank * each, 0)) for rank in range(ranks))


class Planes(NamedTuple):
    """Consecutive planes that a rank borrows from another, or from itself, where a periodic lattice is smaller than the
    halo."""

    owner: int
    borrower: int
    owned: int
    """Which plane of the owner's block is the first."""
    place: int
    """Where it goes in the borrower's widened block."""
    thickness: int


class Slab(NamedTuple):
    """What a rank holds along an axis, widened by what others lend it."""

    first: int
    """Plane of the whole lattice that the slab begins with, without its halo."""
    thickness: int
    """Planes of its own."""
    low: int
    """Planes of the halo before them, and after."""
    high: int
    borrowed: tuple[Planes, ...]

    @property
    def widened(self) -> int:
        """Planes with the halo."""
        return self.low + self.thickness + self.high


def slab(sizes: tuple[int, ...], rank: int, halo: int, periodic: bool) -> Slab:
    """The slab of a rank, where each takes so many planes, with up to ``halo`` planes on each side: fewer at the faces
    of a lattice that is not periodic, none for an empty slab, which computes nothing."""
    bounds = [0, *accumulate(sizes)]
    size, first, thickness = bounds[-1], bounds[rank], sizes[rank]
    if thickness == 0:
        return Slab(first, 0, 0, 0, ())
    low, high = (halo, halo) if periodic else (min(halo, first), min(halo, size - first - thickness))
    borrowed: list[Planes] = []
    for place in (*range(low), *range(low + thickness, low + thickness + high)):
        plane = (first - low + place) % size
        owner = sum(bound <= plane for bound in bounds) - 1  # of equal bounds the last: empty slabs own nothing
        next_one = Planes(owner, rank, plane - bounds[owner], place, 1)
        last = borrowed[-1] if borrowed else None
        if (
            last is not None
            and last._replace(owned=last.owned + last.thickness, place=last.place + last.thickness, thickness=1)
            == next_one
        ):
            borrowed[-1] = last._replace(thickness=last.thickness + 1)
        else:
            borrowed.append(next_one)
    return Slab(first, thickness, low, high, tuple(borrowed))
