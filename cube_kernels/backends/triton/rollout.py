"""All steps of a rollout, and its backward pass by segments: the states at every ``checkpoint_every``-th step were
kept, those between are replayed."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from cube_kernels import philox
from cube_kernels.automaton import StepWeights
from cube_kernels.backends import reference
from cube_kernels.backends.contract import Call, Gradients, Outputs, empty_outputs
from cube_kernels.backends.triton.convergence import settle
from cube_kernels.backends.triton.geometry import offset_table
from cube_kernels.backends.triton.gradient import launch_step_gradient
from cube_kernels.backends.triton.life import launch_bury, launch_measure
from cube_kernels.backends.triton.perception import add_adjoint, add_filter_gradient, filter_partials
from cube_kernels.backends.triton.plan import Plan, rule_plan
from cube_kernels.backends.triton.step import launch_step
from cube_kernels.backends.triton.sums import part_count, sum_parts


class Steps:
    """What every step of a call is launched with.

    Args:
        call: the call.
        taken: as :mod:`cube_kernels.backends.triton.convergence` counts them.
    """

    def __init__(self, call: Call, taken: Tensor | None) -> None:
        automaton, schedule, x, weights, drive, write_mask = call
        lattice, rule = automaton.lattice, automaton.rule
        self.plan = rule_plan(automaton, _product(x.dtype))
        self.automaton, self.weights, self.taken = automaton, weights, taken
        self.rows = x.shape[0] * lattice.cells
        self.write_mask = None if write_mask is None else write_mask.view(torch.uint8)
        seen = lattice.neighbors if self.plan.gathers else lattice.offsets
        self.pool = offset_table(lattice, lattice.offsets, False, device=x.device) if rule.alive else None
        retention = None
        if lattice.boundary == "absorbing":
            retention = reference.retention(lattice, device=x.device, dtype=torch.float32)
        offsets = offset_table(lattice, seen, False, device=x.device)
        number = self.lifetime = None
        if lattice.window is not None:
            number = philox.cell_numbers(lattice, device=x.device)
            self.lifetime = reference.lifetimes(lattice, automaton.rings, device=x.device)
        windowed = number, self.lifetime
        self.tensors = (drive, self.write_mask, taken, retention, *windowed, offsets, self.pool, *weights)
        self.mask_stride = lattice.cells if write_mask is not None and write_mask.shape[0] > 1 else 0
        drive_stride = lattice.cells if drive is not None and drive.shape[0] > 1 else 0
        self.sizes = (drive_stride, self.mask_stride, rule.hidden)
        low, high = rule.clamp or (0.0, 0.0)
        self.threshold, self.dead_value = (rule.alive.threshold, rule.alive.dead_value) if rule.alive else (0.0, 0.0)
        pace = rule.step_size if weights.rate is None else 1.0  # a leaky cell's rate holds the step size
        scale = 1 / rule.fire_rate if rule.fire_rescale else 1.0
        self.first_step = schedule.first_step
        self.numbers = (
            schedule.first_sample or None,
            schedule.seed,
            philox.threshold(rule.fire_rate),
            pace * scale,
            low,
            high,
            self.threshold,
            self.dead_value,
        )

    def moment(self, index: int) -> tuple[int, int]:
        """The number of a step in the call, and in the fire mask."""
        return index, self.first_step + index

    def step(self, x: Tensor, index: int, new: Tensor) -> Tensor | None:
        """Writes the new state; returns which cells lived, bytes ``[B, cells]``, if that was measured apart."""
        shape = self.automaton.lattice.shape
        launch_step(
            self.rows,
            x,
            *self.tensors,
            new,
            *self.sizes,
            *self.moment(index),
            *self.numbers,
            self.rows,
            *shape,
            plan=self.plan,
        )
        if not self.plan.alive_after:
            return None
        living = x.new_empty(x.shape[:-1], dtype=torch.uint8)
        launch_measure(self.rows, x, new, self.pool, living, self.threshold, self.rows, *shape, plan=self.plan)
        launch_bury(
            self.rows,
            new,
            living,
            self.write_mask,
            self.taken,
            self.lifetime,
            self.mask_stride,
            index,
            self.dead_value,
            self.rows,
            *shape,
            plan=self.plan,
        )
        return living


def _product(dtype: torch.dtype) -> str:
    """One of the plan's ``PRODUCTS``. TF32 is torch's own switch, and NVIDIA's format."""
    if dtype is not torch.float32:
        return "widened" if triton.knobs.runtime.interpret else "half"
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" and torch.version.hip is None else "ieee"


def _on_device(x: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on torch's current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def forward(call: Call, keep_checkpoints: bool) -> Outputs:
    """See :class:`cube_kernels.backends.contract.Kernels`."""
    schedule, x = call.schedule, call.x
    every = schedule.trajectory_every
    outputs = empty_outputs(x, schedule, keep_checkpoints)
    result, trajectory, taken, checkpoints = outputs
    if taken is not None:
        taken.fill_(schedule.steps)
    steps = Steps(call, taken)
    state = x
    with _on_device(x):
        for index in range(schedule.steps):
            done = index + 1
            homes = [result] if done == schedule.steps else []
            if trajectory is not None and done % every == 0:
                homes.append(trajectory[done // every - 1])
            if checkpoints is not None and done % schedule.checkpoint_every == 0 and done < schedule.steps:
                homes.append(checkpoints[done // schedule.checkpoint_every - 1])
            new, *copies = homes or [torch.empty_like(x)]
            steps.step(state, index, new)
            if taken is not None and len(x):
                settle(state, new, taken, index, schedule.tolerance)
            for copy in copies:
                copy.copy_(new)
            state = new
    if schedule.steps == 0:
        result.copy_(x)
    return outputs


class Sums(NamedTuple):
    """What the backward pass adds up over cells and steps, in float32."""

    weights: Tensor  # [parts, plan.weights]
    bank: Tensor | None  # [parts, P, offsets, C]
    drive: Tensor | None  # [B, D, H, W, drive]


def backward(
    call: Call,
    checkpoints: Tensor | None,
    taken: Tensor | None,
    state_gradient: Tensor,
    trajectory_gradient: Tensor | None,
) -> Gradients:
    """See :class:`cube_kernels.backends.contract.Kernels`. Gradients keep float32 through the steps."""
    automaton, schedule, x, weights, drive, _ = call
    steps = Steps(call, taken)
    plan, every = steps.plan, schedule.trajectory_every
    gradient = state_gradient.to(torch.float32, copy=True)
    percept_gradient = x.new_empty((*x.shape[:-1], plan.percepts * plan.channels), dtype=torch.float32)
    with _on_device(x):
        sums = Sums(
            x.new_zeros((part_count(plan.weights, steps.rows), plan.weights), dtype=torch.float32),
            filter_partials(x, automaton.lattice, plan.filters) if not plan.gathers else None,
            x.new_zeros((*x.shape[:-1], plan.drive), dtype=torch.float32) if plan.drive else None,
        )
        for start in reversed(range(0, schedule.steps, schedule.checkpoint_every)):
            end = min(start + schedule.checkpoint_every, schedule.steps)
            first = x if start == 0 or checkpoints is None else checkpoints[start // schedule.checkpoint_every - 1]
            states, lives = _replay(steps, first, start, end)
            for index in reversed(range(start, end)):
                if trajectory_gradient is not None and (index + 1) % every == 0:
                    gradient += trajectory_gradient[(index + 1) // every - 1]
                _step_gradient(steps, states.pop(), lives.pop(), index, gradient, percept_gradient, sums)
        drive_gradient = _drive_gradient(sums.drive, drive)
        return Gradients(gradient.to(state_gradient.dtype), _weight_gradients(sums, weights, plan), drive_gradient)


def _replay(steps: Steps, first: Tensor, start: int, end: int) -> tuple[list[Tensor], list[Tensor | None]]:
    """The states before each step from ``start`` to ``end``, and which cells lived in it. The last step is replayed
    only where that is to be learned."""
    states, lives = [first], []
    for index in range(start, end if steps.plan.alive_after else end - 1):
        new = torch.empty_like(first)
        lives.append(steps.step(states[-1], index, new))
        states.append(new)
    return states[: end - start], lives if steps.plan.alive_after else [None] * (end - start)


def _step_gradient(
    steps: Steps,
    state: Tensor,
    living: Tensor | None,
    index: int,
    gradient: Tensor,
    percept_gradient: Tensor,
    sums: Sums,
) -> None:
    """Turns the gradient of the state after a step into that of the state before it."""
    lattice, bank = steps.automaton.lattice, steps.weights.bank
    launch_step_gradient(
        steps.rows,
        state,
        *steps.tensors,
        living,
        gradient,
        percept_gradient,
        sums.drive,
        sums.weights,
        *steps.sizes,
        *steps.moment(index),
        *steps.numbers,
        steps.rows,
        *lattice.shape,
        plan=steps.plan,
        parts=sums.weights.shape[0],
    )
    if sums.bank is not None:
        add_filter_gradient(state, lattice, percept_gradient, sums.bank)
    add_adjoint(percept_gradient, lattice, bank, gradient)


def _drive_gradient(summed: Tensor | None, drive: Tensor | None) -> Tensor | None:
    """Summed over the batch where it shares the drive."""
    if summed is None or drive is None:
        return None
    return sum_parts(summed, drive.dtype)[None] if drive.shape[0] == 1 else summed.to(drive.dtype)


def _weight_gradients(sums: Sums, weights: StepWeights, plan: Plan) -> StepWeights:
    """The parts added up and cut into the gradients of each weight."""
    dtype = next(w.dtype for w in weights if w is not None)
    bank = None if sums.bank is None else sum_parts(sums.bank, dtype)
    whole = sum_parts(sums.weights, dtype)
    starts = (0, plan.hidden_bias_start, plan.head_weight_start, plan.head_bias_start, plan.rate_start)
    cut = [
        None if w is None else whole[start : start + w.numel()].view_as(w)
        for start, w in zip(starts, weights[1:], strict=True)
    ]
    return StepWeights(bank, *cut)
