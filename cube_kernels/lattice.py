"""The lattice: its size, its neighborhood and what lies beyond its faces."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cube_kernels.value import Value, check_choice, check_flag, check_integer, check_positive, check_range, check_tuple

Offset = tuple[int, int, int]

OUTSIDE = -1
"""Index of a neighbor that does not exist: it reads as zero."""


def _inside(index: int, size: int) -> int:
    return index if 0 <= index < size else OUTSIDE


# What each boundary makes of index i + shift on an axis of `size` cells. One line a boundary: the reference
# and the compiled modules follow the tables built from these, Triton refuses a name that its kernels lack.
BOUNDARIES: dict[str, Callable[[int, int], int]] = {
    "walls": _inside,
    "periodic": lambda index, size: index % size,
    "replicate": lambda index, size: min(max(index, 0), size - 1),
    "reflecting": lambda index, size: abs((index + size - 1) % (2 * size - 2) - (size - 1)) if size > 1 else index,
    "absorbing": _inside,
}


class Surroundings(NamedTuple):
    """The cells within a radius."""

    axes: str
    """Along which they lie."""
    distance: Callable[[Offset], int]


def _steps(offset: Offset) -> int:
    return sum(map(abs, offset))


def _farthest(offset: Offset) -> int:
    return max(map(abs, offset))


NEIGHBORHOODS = {
    "von_neumann": Surroundings("DHW", _steps),
    "moore": Surroundings("DHW", _farthest),
    "von_neumann_2d": Surroundings("HW", _steps),
    "moore_2d": Surroundings("HW", _farthest),
    "line": Surroundings("W", _steps),
}

FOREVER = 2**31 - 1
"""Steps of a cell that every step computes."""

MOST_OFFSETS, MOST_TARGETS = 2**21, 2**26
"""Of a neighborhood's box, and of an axis's boundary map: what is larger takes minutes to make."""


def _as_offset(given: Any) -> Offset:
    try:
        d, h, w = (check_integer("Lattice", "a shift", shift) for shift in given)
    except (TypeError, ValueError):
        raise TypeError(
            f"Lattice: neighborhood holds {given!r}; an offset is three integers (d, h, w), and a named neighborhood "
            f"one of {', '.join(map(repr, NEIGHBORHOODS))}"
        ) from None
    return d, h, w


@dataclass(frozen=True)
class Window(Value):
    """The place of a block of cells in a whole lattice, whose other cells are elsewhere: on another device, say.

    A rollout of a lattice with a window computes what the whole lattice's would, as far as the block shows it: beyond a
    cut face there is nothing to read, so each step of the call leaves out the cells next to it, as far as the
    neighborhood reaches, and more of them the next step. They keep the last values that were computed.

    Args:
        whole: cells of the whole lattice along each axis, ``(D, H, W)``.
        origin: which cell of it is the block's first, ``(d, h, w)``. In a periodic lattice the block may go around.
        cut: of each axis, whether the whole goes on beyond the block's low and its high face. The other faces are
            the whole's own, with its boundary.
    """

    whole: tuple[int, int, int]
    origin: tuple[int, int, int]
    cut: tuple[tuple[bool, bool], tuple[bool, bool], tuple[bool, bool]]

    __hash__ = Value.__hash__

    def __post_init__(self) -> None:
        whole, origin, cut = (check_tuple("Window", name, getattr(self, name)) for name in ("whole", "origin", "cut"))
        for name, given in (("whole", whole), ("origin", origin), ("cut", cut)):
            if len(given) != 3:
                raise ValueError(f"Window: {name} is {given}; it takes one entry for each axis (D, H, W)")
        faces = tuple(tuple(check_flag("Window", "cut", face) for face in check_tuple("Window", "cut", f)) for f in cut)
        if any(len(pair) != 2 for pair in faces):
            raise ValueError(f"Window: cut is {cut}; it takes (low, high) for each axis")
        self._set(
            whole=tuple(check_positive("Window", "every size of whole", size) for size in whole),
            origin=tuple(check_positive("Window", "every index of origin", index, least=0) for index in origin),
            cut=faces,
        )
        for index, size in zip(self.origin, self.whole, strict=True):
            if index >= size:
                raise ValueError(f"Window: origin is {self.origin}, but the whole has {self.whole} cells")
        self._seal()


@dataclass(frozen=True)
class Lattice(Value):
    """``D×H×W`` cells of ``channels`` numbers each.

    Args:
        shape: cells along each axis, ``(D, H, W)``, each at least 1.
        channels: numbers ``C`` a cell. A state is a tensor ``[B, D, H, W, C]``.
        neighborhood: ``"von_neumann"`` (cells within ``radius`` steps along the axes: 7 for radius 1, itself
            included), ``"moore"`` (the surrounding block: 27), the same in the plane of H and W
            (``"von_neumann_2d"``: 5, ``"moore_2d"``: 9), along W alone (``"line"``: 3), or a sequence of offsets
            ``(d, h, w)``, taken as they are and in their order.
        radius: how far a named neighborhood looks, in cells.
        boundary: what a cell reads beyond a face: ``"walls"`` (zeros), ``"periodic"`` (the opposite face),
            ``"replicate"`` (the nearest cell: zero flux), ``"reflecting"`` (mirrored at the face's cells, which
            are not repeated) or ``"absorbing"`` (zeros, and the state fades towards the faces: after every step
            it is multiplied by ``η``). It applies at every step.
        sponge_width, sponge_strength: of the absorbing boundary (Cerjan et al., 1985): a cell ``i`` cells from the
            nearest face of an axis has ``η = exp(-(strength · max(0, width - i) / width)²)`` there, and the
            product over the axes in all. An axis of one cell absorbs nothing.
        window: the block's place in a whole lattice of which it is a part; None if it is whole itself.

    Raises:
        ValueError, TypeError: a size below 1, an unknown neighborhood or boundary, offsets that are none or
            repeat themselves, a mirror on an axis of one cell, a window that does not fit; the message names the
            value and the valid ones.
    """

    shape: tuple[int, int, int]
    channels: int
    neighborhood: str | tuple[Offset, ...] = "von_neumann"
    radius: int = 1
    boundary: str = "walls"
    sponge_width: int = 4
    sponge_strength: float = 0.5
    window: Window | None = None

    offsets: tuple[Offset, ...] = field(init=False, repr=False, compare=False)
    """Offsets ``(d, h, w)`` of the neighborhood; of a named one the cell itself first, the rest in ascending order."""
    neighbors: tuple[Offset, ...] = field(init=False, repr=False, compare=False)
    """The offsets without the cell itself."""
    state_shape: tuple[int, int, int, int] = field(init=False, repr=False, compare=False)
    """``(D, H, W, C)``."""
    reach: tuple[int, int, int] = field(init=False, repr=False, compare=False)
    """How far the offsets go along each axis, in cells."""

    __hash__ = Value.__hash__

    def __post_init__(self) -> None:
        shape = check_tuple("Lattice", "shape", self.shape)
        if len(shape) != 3:
            raise ValueError(f"Lattice: shape is {shape}; it takes three sizes (D, H, W)")
        self._set(
            shape=tuple(check_positive("Lattice", "every size of shape", size) for size in shape),
            channels=check_positive("Lattice", "channels", self.channels),
            radius=check_positive("Lattice", "radius", self.radius),
            boundary=check_choice("Lattice", "boundary", self.boundary, BOUNDARIES),
            sponge_width=check_positive("Lattice", "sponge_width", self.sponge_width),
            sponge_strength=check_range("Lattice", "sponge_strength", self.sponge_strength, 0, math.inf),
        )
        if isinstance(self.neighborhood, str):
            self._set(neighborhood=check_choice("Lattice", "neighborhood", self.neighborhood, NEIGHBORHOODS))
        else:
            self._set(neighborhood=self._listed_offsets())
        self._derive()
        if self.boundary != "absorbing" and (self.sponge_width, self.sponge_strength) != (4, 0.5):
            raise ValueError(f"Lattice: only boundary 'absorbing' has a sponge, and boundary is {self.boundary!r}")
        if self.boundary == "reflecting":
            for axis, name in enumerate("DHW"):
                if self.shape[axis] == 1 and self.reach[axis]:
                    raise ValueError(
                        f"Lattice: boundary 'reflecting' is undefined on axis {name} of {self.shape}: it has one cell "
                        "and no mirror image; take another boundary, or offsets that do not leave that axis"
                    )
        if self.window is not None:
            self._check_window(self.window)
        self._seal()

    @classmethod
    def _read(cls, named: dict[str, Any]) -> dict[str, Any]:
        window = named.get("window")
        return named | {"window": None if window is None else Window(**window)}

    def _check_window(self, window: Window) -> None:
        if not isinstance(window, Window):
            raise TypeError(f"Lattice: window is {window!r}; it takes a Window or None")
        for axis, name in enumerate("DHW"):
            size, first, whole = self.shape[axis], window.origin[axis], window.whole[axis]
            low, high = window.cut[axis]
            around = self.boundary == "periodic" and low and high
            if not around and (low != (first > 0) or high != (first + size < whole) or first + size > whole):
                raise ValueError(
                    f"Lattice: along axis {name} the window has {size} cells from {first} on of {whole}, and its cut "
                    f"is {(low, high)}; a face is cut exactly where the whole goes on"
                )

    def _listed_offsets(self) -> tuple[Offset, ...]:
        given: Any = self.neighborhood
        if not isinstance(given, Iterable):
            raise TypeError(
                f"Lattice: neighborhood is {given!r}; it takes {', '.join(map(repr, NEIGHBORHOODS))} or a sequence of "
                "offsets (d, h, w)"
            )
        offsets = tuple(_as_offset(offset) for offset in given)
        repeated = sorted(offset for offset, count in Counter(offsets).items() if count > 1)
        if not offsets or repeated:
            wrong = f"holds {repeated[0]} twice" if repeated else "is an empty sequence of offsets"
            raise ValueError(f"Lattice: neighborhood {wrong}; it takes at least one offset, each once")
        if self.radius != 1:
            raise ValueError(f"Lattice: radius is {self.radius}, but a sequence of offsets has its own reach")
        return offsets

    @property
    def cells(self) -> int:
        """Number of cells, ``D·H·W``."""
        return math.prod(self.shape)

    def _derive(self) -> None:
        given = self.neighborhood
        listed = self._named_offsets(given) if isinstance(given, str) else given
        reach = tuple(max(abs(o[axis]) for o in listed) for axis in range(3))
        for axis, name in enumerate("DHW"):
            targets = (2 * reach[axis] + 1) * self.shape[axis]
            if targets > MOST_TARGETS:
                raise ValueError(
                    f"Lattice: offsets reach {reach[axis]} cells along axis {name}, which has {self.shape[axis]}: its "
                    f"boundary map has {targets} entries; at most {MOST_TARGETS}"
                )
        self._set(
            state_shape=(*self.shape, self.channels),
            offsets=listed,
            neighbors=tuple(o for o in listed if any(o)),
            reach=reach,
        )

    def _named_offsets(self, name: str) -> tuple[Offset, ...]:
        axes, distance = NEIGHBORHOODS[name]
        most = (int(MOST_OFFSETS ** (1 / len(axes))) - 1) // 2
        if self.radius > most:
            raise ValueError(f"Lattice: radius is {self.radius}; neighborhood {name!r} takes at most {most}")
        d, h, w = (range(-self.radius, self.radius + 1) if axis in axes else (0,) for axis in "DHW")
        box = itertools.product(d, h, w)
        return (0, 0, 0), *(offset for offset in box if any(offset) and distance(offset) <= self.radius)

    def axis_targets(self, axis: int) -> list[list[int]]:
        """The boundary map of one axis: ``[shift + reach][i]`` is the index that cell ``i`` reads at
        ``i + shift`` for shifts ``-reach..reach``, or :data:`OUTSIDE`."""
        size, reach, beyond = self.shape[axis], self.reach[axis], BOUNDARIES[self.boundary]
        return [[beyond(i + shift, size) for i in range(size)] for shift in range(-reach, reach + 1)]

    @property
    def whole(self) -> tuple[int, int, int]:
        """Cells of the whole lattice along each axis: the lattice itself, or what its window shows a part of."""
        return self.shape if self.window is None else self.window.whole

    def axis_places(self, axis: int) -> list[int]:
        """Where each index of one axis lies in the whole lattice."""
        first = 0 if self.window is None else self.window.origin[axis]
        return [(first + i) % self.whole[axis] for i in range(self.shape[axis])]

    def axis_lifetimes(self, axis: int, rings: int) -> list[int]:
        """How many steps of a call compute the cells of each index of one axis, :data:`FOREVER` if all do. A step
        leaves out those whose neighborhood the one before it left out. Where life is measured after the update too, it
        takes ``rings`` = 2: the neighbors' new states as well."""
        size, ring = self.shape[axis], rings * self.reach[axis]
        low, high = (False, False) if self.window is None or ring == 0 else self.window.cut[axis]
        beyond = ring - self.reach[axis]  # cells whose new states count, but not whether they live
        counted = [FOREVER] * size
        for cut, distances in ((low, range(size)), (high, range(size - 1, -1, -1))):
            if cut:
                counted = [min(most, (i + beyond) // ring) for most, i in zip(counted, distances, strict=True)]
        return counted

    def axis_retention(self, axis: int) -> list[float]:
        """The factor ``η`` of each index of one axis: 1 everywhere unless the boundary is absorbing."""
        size = self.whole[axis]
        if self.boundary != "absorbing" or size == 1:
            return [1.0] * self.shape[axis]
        depths = [max(0, self.sponge_width - min(i, size - 1 - i)) / self.sponge_width for i in self.axis_places(axis)]
        return [math.exp(-((self.sponge_strength * depth) ** 2)) for depth in depths]
