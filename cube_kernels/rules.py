"""Ready systems by name, with everything set. Each function returns a :class:`cube_kernels.CubeLayer`, or, where the
system is no :class:`cube_kernels.Rule`, a :class:`cube_kernels.Cell`: :func:`gray_scott`, :func:`lenia`, :func:`wave`.

:func:`classic_cell`, :func:`growing_nca`, :func:`isotropic_nca` and :func:`texture_nca` are to be trained. The others
compute what their names say from the first call on; their parameters are constants (``requires_grad`` is False), yet
their states have gradients. ``layer.to(dtype)`` carries any of them to another dtype.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor, nn

from cube_kernels.fields import Shape, along_axes, axes_of, gray_scott, lenia, wave
from cube_kernels.lattice import BOUNDARIES, Lattice, Offset
from cube_kernels.layer import CubeLayer
from cube_kernels.update_rule import Alive, Rule
from cube_kernels.value import check_choice, check_positive, check_range

__all__ = [
    "classic_cell",
    "elementary",
    "gray_scott",
    "growing_nca",
    "heat",
    "isotropic_nca",
    "lenia",
    "life",
    "texture_nca",
    "wave",
]

_EXACT = [name for name in BOUNDARIES if name != "absorbing"]
"""Boundaries that make no fraction of a one."""


def classic_cell(shape: Shape, steps: int, boundary: str = "walls") -> CubeLayer:
    """The classic cell: the 8 states of each of 6 neighbors, 8 of its own and 12 external inputs → 16 tanh → 8 tanh,
    which replace its state. 1,240 parameters.

    The layer takes states ``[B, D, H, W, 8]`` and a drive ``[B or 1, D, H, W, 12]``: the external inputs.

    Args:
        shape: cells along each axis, ``(D, H, W)``.
        steps: steps of a call that does not say.
        boundary: see :class:`cube_kernels.Lattice`.

    Raises:
        ValueError, TypeError: those of :class:`cube_kernels.Lattice` and :class:`cube_kernels.CubeLayer`.
    """
    rule = Rule(perception="gather", drive=12, hidden=16, activation="tanh", update="replace")
    return CubeLayer(Lattice(shape, 8, boundary=boundary), rule, steps)


def growing_nca(
    shape: Shape, channels: int = 16, hidden: int = 128, fire_rate: float = 0.5, steps: int = 64
) -> CubeLayer:
    """Growing neural cellular automata (Mordvintsev, Randazzo, Niklasson and Levin: "Growing Neural Cellular
    Automata", Distill, 2020), in the plane as published and in space.

    A cell perceives itself and the Sobel derivatives along W and H, and in space along D; a hidden layer of relus and
    a last layer that starts at zero add to its state where it fires. It lives while channel 3, the opacity, exceeds
    0.1 in its neighborhood, before and after the step; what is dead is zero. Beyond the faces all is zero. Both
    layers have biases, as in the authors' TensorFlow code: 8,336 parameters in the plane.

    The layer takes states ``[B, D, H, W, channels]``, and a ``seed`` at each call unless ``fire_rate`` is 1. Untrained,
    it changes no living cell.

    Args:
        shape: ``(1, H, W)`` for the plane, with 8 neighbors; ``(D, H, W)`` for space, with 26.
        channels: channels a cell, at least 4: three colors, opacity and what the cells tell each other.
        hidden: width of the hidden layer.
        fire_rate: probability with which a cell updates in a step; changes are not rescaled by it.
        steps: steps of a call that does not say; the authors train with 64 to 96.

    Raises:
        ValueError, TypeError: fewer than 4 channels, and those of :class:`cube_kernels.Lattice`,
            :class:`cube_kernels.Rule` and :class:`cube_kernels.CubeLayer`.
    """
    rule = Rule(
        filters=0,
        fixed_filters=("identity", "sobel_w", "sobel_h", *(() if _planar(shape) else ("sobel_d",))),
        own_state=False,  # the identity filter shows it
        hidden=hidden,
        activation="relu",
        fire_rate=fire_rate,
        alive=Alive(channel=3, threshold=0.1),
    )
    layer = CubeLayer(Lattice(shape, channels, _surroundings(shape)), rule, steps)
    nn.init.zeros_(layer.head_weight)  # type: ignore[arg-type]
    return layer


def texture_nca(
    shape: Shape, channels: int = 12, hidden: int = 96, fire_rate: float = 0.5, steps: int = 64
) -> CubeLayer:
    """Cells that weave a texture (Niklasson, Mordvintsev, Randazzo and Levin: "Self-Organising Textures", Distill,
    2021), in the plane as published and in space.

    A cell perceives itself, its slopes along each axis and a Laplacian, by the authors' binomial filters, which are
    constants; a hidden layer of relus and a last layer without bias, which starts at zero, add to its state where it
    fires. The lattice is a torus. 5,856 parameters to train in the plane.

    The layer takes states ``[B, D, H, W, channels]``, zeros to begin with, and a ``seed`` at each call unless
    ``fire_rate`` is 1. Colors are the first three channels plus 0.5.

    Args:
        shape: ``(1, H, W)`` for the plane, with 8 neighbors; ``(D, H, W)`` for space, with 26.
        channels: channels a cell.
        hidden: width of the hidden layer.
        fire_rate: probability with which a cell updates in a step; changes are not rescaled by it.
        steps: steps of a call that does not say; the authors train with 32 to 96.

    Raises:
        ValueError, TypeError: those of :class:`cube_kernels.Lattice`, :class:`cube_kernels.Rule` and
            :class:`cube_kernels.CubeLayer`.
    """
    lattice = Lattice(shape, channels, _surroundings(shape), boundary="periodic")
    slopes = [_binomial(lattice, along) for along, reach in reversed([*enumerate(lattice.reach)]) if reach]
    itself = [float(not any(offset)) for offset in lattice.offsets]
    rule = Rule(filters=2 + len(slopes), own_state=False, hidden=hidden, activation="relu", fire_rate=fire_rate)
    return _perceiving(lattice, rule, steps, itself, *slopes, _binomial_laplacian(lattice))


def isotropic_nca(
    shape: Shape, channels: int = 16, hidden: int = 192, fire_rate: float = 0.5, steps: int = 64
) -> CubeLayer:
    """Growing cells that know no direction (Mordvintsev, Randazzo and Fouts: "Growing Isotropic Neural Cellular
    Automata", ALIFE 2022), in the plane as published and in space: what they grow can be turned and mirrored.

    A cell perceives itself and a Laplacian, by the authors' binomial filter, which is constant; a hidden layer of relus
    and a last layer without bias, which starts at zero, add to its state where it fires. It lives while channel 3, the
    opacity, exceeds 0.1 in its neighborhood before the step; what is dead is zero. The lattice is a torus. 9,408
    parameters to train.

    The layer takes states ``[B, D, H, W, channels]``, and a ``seed`` at each call unless ``fire_rate`` is 1. A single
    seed cell has no sides; the authors start from several of different colors, or train for a picture in any direction.

    Args:
        shape, channels, hidden, fire_rate, steps: see :func:`growing_nca`; the authors train with 64 to 96 steps.

    Raises:
        ValueError, TypeError: fewer than 4 channels, and those of :class:`cube_kernels.Lattice`,
            :class:`cube_kernels.Rule` and :class:`cube_kernels.CubeLayer`.
    """
    lattice = Lattice(shape, channels, _surroundings(shape), boundary="periodic")
    alive = Alive(channel=3, threshold=0.1, when="before")
    rule = Rule(hidden=hidden, activation="relu", fire_rate=fire_rate, alive=alive)
    return _perceiving(lattice, rule, steps, _binomial_laplacian(lattice))


def life(shape: Shape, rule: str = "B3/S23", boundary: str = "periodic", steps: int = 1) -> CubeLayer:
    """Outer-totalistic life, exactly (Gardner, Scientific American 223(4), 1970; in space Bays, Complex Systems 1,
    1987): a dead cell is born and a living one survives by the number of its living neighbors.

    The layer takes states ``[B, D, H, W, 1]`` of zeros and ones in float64, float32, bfloat16 or float16, and returns
    such states: every number on the way is a small integer, which each of these dtypes holds.

    Args:
        shape: ``(1, H, W)`` for the plane, with 8 neighbors; ``(D, H, W)`` for space, with 26.
        rule: ``"B.../S..."``, the numbers of living neighbors at which a cell is born and survives, in digits
            (``"B36/S23"``). With a comma or a hyphen anywhere, both parts are numbers and ranges separated by commas
            (``"B13,14,17-19/S13-26"``; ``"B13-13/S14"`` for 13 and 14 alone). Either part may be empty. With ``B0``,
            cells are born out of nothing; beyond walls, where there are no cells, none is.
        boundary: ``"walls"``, ``"periodic"``, ``"replicate"`` or ``"reflecting"``. An absorbing one would turn ones
            into fractions.
        steps: generations of a call that does not say.

    Raises:
        ValueError: a rule of another form, a count above the number of neighbors, another boundary.
    """
    boundary = check_choice("life", "boundary", boundary, _EXACT)
    lattice = Lattice(shape, 1, _surroundings(shape), boundary=boundary)
    most = len(lattice.neighbors)
    born, survive = _parse_life(rule, most)
    lives = torch.zeros(2 * most + 2)  # of q = 2·neighbors + own state, which tells all cases apart
    lives[[2 * n for n in born] + [2 * n + 1 for n in survive]] = 1
    weights = dict.fromkeys(lattice.neighbors, 2.0) | {(0, 0, 0): 1.0}
    return _by_table(lattice, weights, lives, steps)


def elementary(width: int, number: int, boundary: str = "periodic", steps: int = 1) -> CubeLayer:
    """An elementary cellular automaton, exactly (Wolfram: "Statistical Mechanics of Cellular Automata", Reviews of
    Modern Physics 55, 1983): on a line, a cell becomes what ``number`` says of itself and its two neighbors.

    The layer takes states ``[B, 1, 1, W, 1]`` of zeros and ones in float64, float32, bfloat16 or float16, and returns
    such states.

    Args:
        width: cells on the line.
        number: Wolfram's, 0 to 255: its bit ``4·left + 2·self + right`` is the new state.
        boundary: ``"walls"``, beyond which all is zero, ``"periodic"``, ``"replicate"`` or ``"reflecting"``.
        steps: generations of a call that does not say.

    Raises:
        ValueError, TypeError: a number beyond 255, another boundary, and those of :class:`cube_kernels.Lattice`.

    Example::

        triangle = rules.elementary(64, 90)(x, steps=32, trajectory_every=1).trajectory[:, 0, 0, 0, :, 0]
    """
    boundary = check_choice("elementary", "boundary", boundary, _EXACT)
    number = check_positive("elementary", "number", number, least=0)
    if number > 255:
        raise ValueError(f"elementary: number is {number}; it must be at most 255")
    lattice = Lattice((1, 1, width), 1, "line", boundary=boundary)
    becomes = torch.tensor([float(number >> seen & 1) for seen in range(8)])
    return _by_table(lattice, {(0, 0, -1): 4.0, (0, 0, 0): 2.0, (0, 0, 1): 1.0}, becomes, steps)


def heat(
    shape: Shape, diffusivity: float, time_step: float, channels: int = 1, boundary: str = "replicate", steps: int = 1
) -> CubeLayer:
    """The heat equation by Euler's explicit method: ``x ← x + diffusivity · time_step · Δx`` for each channel.

    ``Δ`` sums the second differences along the axes of more than one cell; the spacing of the cells is 1. The
    boundary says what lies beyond the faces: cold (``"walls"``), a ring (``"periodic"``), insulation between the cells
    (``"replicate"``) or on the face's cells (``"reflecting"``), a sponge (``"absorbing"``).

    The layer takes states ``[B, D, H, W, channels]``. It is linear, and so is its gradient.

    Args:
        shape: cells along each axis, ``(D, H, W)``; those of one cell take no part.
        diffusivity: how fast heat spreads, in cells² per unit of time.
        time_step: the time that a step takes.
        channels: channels a cell, none of which sees another.
        boundary: see :class:`cube_kernels.Lattice`.
        steps: steps of a call that does not say.

    Raises:
        ValueError, TypeError: a negative diffusivity or time step, an unstable step (``diffusivity · time_step`` above
            1/(2·axes), by von Neumann's analysis), and those of :class:`cube_kernels.Lattice`.
    """
    diffusivity = check_range("heat", "diffusivity", diffusivity, 0, math.inf)
    time_step = check_range("heat", "time_step", time_step, 0, math.inf)
    lattice = Lattice(shape, channels, along_axes(shape), boundary=boundary)
    axes, share = axes_of(lattice), diffusivity * time_step
    if not share * 2 * axes <= 1:
        raise ValueError(
            f"heat: diffusivity · time_step is {share}; along {axes} axes a step is stable up to 1/{2 * axes} only: "
            "take a smaller time_step, and more steps"
        )
    return _constant(
        lattice,
        Rule(filters=0, fixed_filters=("laplacian",), own_state=False, hidden=0, step_size=share),
        steps,
    )


def _planar(shape: Shape) -> bool:
    return tuple(shape)[:1] == (1,)


def _surroundings(shape: Shape) -> str:
    return "moore_2d" if _planar(shape) else "moore"


def _binomial(lattice: Lattice, along: int | None = None) -> list[float]:
    """At each offset the product of ``1, 2, 1`` over the axes, or of ``-1, 0, 1`` along one of them."""
    axes = [axis for axis, reach in enumerate(lattice.reach) if reach]
    return [math.prod(o[axis] if axis == along else 2 - abs(o[axis]) for axis in axes) for o in lattice.offsets]


def _binomial_laplacian(lattice: Lattice) -> list[float]:
    """The difference between what is around a cell and what it is; not divided by the weights' sum."""
    weights = _binomial(lattice)
    return [weight - (0 if any(o) else sum(weights)) for o, weight in zip(lattice.offsets, weights, strict=True)]


def _perceiving(lattice: Lattice, rule: Rule, steps: int, *filters: list[float]) -> CubeLayer:
    """A layer of constant filters, the same for every channel, whose last layer starts at zero and has no bias."""
    layer = CubeLayer(lattice, rule, steps)
    bank = torch.tensor(filters, dtype=torch.get_default_dtype())[..., None].repeat(1, 1, lattice.channels)
    layer.filters = nn.Parameter(bank, requires_grad=False)
    nn.init.zeros_(layer.head_weight)  # type: ignore[arg-type]
    layer.head_bias.requires_grad_(False)  # type: ignore[union-attr]
    return layer


def _by_table(lattice: Lattice, weights: dict[Offset, float], table: Tensor, steps: int) -> CubeLayer:
    """A cell becomes ``table[q]``, where ``q`` is what it sees, weighed and summed: an integer from 0 on. What it
    becomes is linear between integers and zero below all of them, so it is a sum of relus: its second difference is
    what each of them weighs."""
    bends = torch.cat([torch.zeros(2), table]).diff(n=2)  # at q = -1, 0, 1, ...
    kept = bends.nonzero().flatten().tolist() or [0]  # a table of zeros has none; a layer needs one
    return _constant(
        lattice,
        Rule(own_state=False, hidden=len(kept), activation="relu", update="replace", squash="identity"),
        steps,
        filters=torch.tensor([weights[offset] for offset in lattice.offsets]).view(1, -1, 1),
        hidden_weight=torch.ones(len(kept), 1),
        hidden_bias=1.0 - torch.tensor(kept),
        head_weight=bends[None, kept],
        head_bias=torch.zeros(1),
    )


def _constant(lattice: Lattice, rule: Rule, steps: int, **parameters: Tensor) -> CubeLayer:
    """A layer of these parameters, which no optimizer changes."""
    layer = CubeLayer._empty(lattice, rule, steps)
    for name, value in parameters.items():
        setattr(layer, name, nn.Parameter(value, requires_grad=False))
    return layer


def _parse_life(rule: str, most: int) -> tuple[set[int], set[int]]:
    """The numbers of living neighbors, of ``most``, at which a cell is born and survives."""
    listed = "," in rule or "-" in rule
    count, separator = ("[0-9]+(?:-[0-9]+)?", ",") if listed else ("[0-9]", "")
    part = f"((?:{count}{separator})*{count}|)"
    form = re.fullmatch(f"B{part}/S{part}", rule, re.IGNORECASE)
    parts = [[piece.split("-") for piece in re.findall(count, text)] for text in form.groups()] if form else []
    ranges = [[(int(ends[0]), int(ends[-1])) for ends in pieces] for pieces in parts]
    if not ranges or any(low > high for pairs in ranges for low, high in pairs):
        raise ValueError(
            f"life: rule is {rule!r}; it takes 'B.../S...' with the counts of neighbors in digits, as in 'B36/S23', or "
            "both parts in numbers and ascending ranges separated by commas, as in 'B13,14,17-19/S13-26'"
        )
    highest = max((high for pairs in ranges for _, high in pairs), default=0)
    if highest > most:
        how = "; in a rule with a comma or a hyphen, commas separate counts" if listed else ""
        raise ValueError(f"life: rule {rule!r} counts {highest}, but a cell has {most} neighbors{how}")
    born, survive = ({n for low, high in pairs for n in range(low, high + 1)} for pairs in ranges)
    return born, survive
