"""The heat rows' peers: one linear stencil, ``steps`` times, on a state of ``C`` independent fields."""

from __future__ import annotations

import os

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cases import Case, Problem
from benchmarks.peers import Program, torch_program


def _taps(problem: Problem) -> np.ndarray:
    """The stencil, ``[3, 3, 3]``: the same for every channel."""
    assert problem.parameters.filters is not None
    taps = np.zeros((3, 3, 3), np.float32)
    for offset, weight in zip(problem.lattice.offsets, problem.parameters.filters[0, :, 0].tolist(), strict=True):
        taps[tuple(1 + o for o in offset)] = weight
    return taps


def conv3d(case: Case) -> Program:
    problem = case.problem()
    kernel = torch.tensor(_taps(problem)).expand(case.channels, 1, 3, 3, 3).contiguous()

    def rollout(x: Tensor) -> Tensor:
        for _ in range(problem.steps):
            x = F.conv3d(x, kernel, padding=1, groups=case.channels)
        return x

    x = problem.x.permute(0, 4, 1, 2, 3)  # as in memory: channels_last_3d
    return torch_program(case, rollout, x, (), lambda results: [results[0].permute(0, 2, 3, 4, 1)])


def scipy_convolve(case: Case) -> Program:
    from scipy.ndimage import convolve

    problem = case.problem()
    x, taps = problem.x[0].numpy(), _taps(problem)[..., None]

    def rollout() -> np.ndarray:
        state = x
        for _ in range(problem.steps):
            state = convolve(state, taps, mode="constant")
        return state

    return Program(rollout, lambda state: [torch.tensor(state)[None]])


def devito(case: Case) -> Program:
    """One Operator that runs all steps between two buffers; its halo of zeros is the wall. Setting the first state
    is part of the call, as it would be for a user."""
    os.environ.update(DEVITO_LANGUAGE="openmp", DEVITO_LOGGING="ERROR")
    from devito import Dimension, Eq, Grid, Operator, TimeFunction

    problem = case.problem()
    x, taps = problem.x[0].numpy(), _taps(problem)
    grid = Grid(shape=case.shape, dtype=np.float32)
    channel = Dimension("channel")
    u = TimeFunction(
        name="u",
        grid=grid,
        space_order=2,
        dimensions=(grid.stepping_dim, *grid.dimensions, channel),
        shape=(2, *case.shape, case.channels),
        halo=((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)),
    )

    def neighbor(offset: tuple[int, int, int]):
        return u.subs({axis: axis + o * axis.spacing for axis, o in zip(grid.dimensions, offset, strict=True)})

    stencil = sum(float(taps[tuple(1 + o for o in at)]) * neighbor(at) for at in problem.lattice.offsets)
    operator = Operator(Eq(u.forward, stencil))

    def rollout() -> np.ndarray:
        u.data[0] = x
        operator.apply(time_m=0, time_M=problem.steps - 1)
        return u.data[problem.steps % 2]

    return Program(rollout, lambda state: [torch.tensor(np.array(state))[None]])
