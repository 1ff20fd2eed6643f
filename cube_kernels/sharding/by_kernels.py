"""A shared rollout as one operation of autograd, for backends that compute derivatives themselves.

It does by hand what :mod:`cube_kernels.sharding.by_autograd` leaves to autograd, and so computes and keeps no more than
one process does of its own lattice: the last steps of a segment are not run again, halos are exchanged in place, and
gradients go from chunk to chunk in float32. It is differentiable once.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cube_kernels.automaton import Automaton, StepWeights
from cube_kernels.backends.contract import Call, Gradients, Kernels, Outputs, Schedule
from cube_kernels.call import door
from cube_kernels.precision import wide_dtype
from cube_kernels.sharding.course import Course


class Job(NamedTuple):
    """What computes a rollout."""

    course: Course
    kernels: Kernels
    automaton: Automaton | None
    """Of the widened block; None for one without cells."""


class _Tensors(NamedTuple):
    """What every step reads."""

    write_mask: Tensor | None
    drive: Tensor | None
    weights: StepWeights


def rollout(
    job: Job, x: Tensor, write_mask: Tensor | None, drive: Tensor | None, weights: StepWeights
) -> tuple[Tensor, list[Tensor], Tensor]:
    """As :func:`cube_kernels.sharding.by_autograd.rollout`, with the weights of a step in the parameters' place."""
    tensors = x, write_mask, drive, *map(door.resolved, weights)
    differentiated = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    state, taken, *trajectory = _Rollout.apply(job, differentiated, *tensors)
    return state, trajectory, taken


class _Rollout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, job: Job, differentiated: bool, x: Tensor, *others: Tensor | None) -> Any:
        write_mask, drive, *weights = others
        course, tensors = job.course, _Tensors(write_mask, drive, StepWeights(*weights))
        block = course.block
        wide = block.widen(x)
        running = torch.ones(x.shape[0], dtype=torch.bool, device=x.device)
        taken = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        kept, trajectory, ran = [], [], []
        for ends in course.segments:
            for start, end in pairwise(ends):
                block.fill(wide)
                if differentiated and start == ends[0]:
                    kept.append(wide)
                new = _forward(job, tensors, wide, start, end, False).state
                if course.options.tolerance is not None:
                    ran.append(running)
                    new = torch.where(_each(running), new, wide)
                    taken = taken + running
                    running = running & ~course.converged(wide, new)
                wide = new
            if course.shows(ends[-1]):
                trajectory.append(block.own(wide).clone())
        ctx.job, ctx.counts = job, (len(weights), len(kept))
        ctx.save_for_backward(write_mask, drive, *weights, *kept, *ran)
        ctx.mark_non_differentiable(taken)
        ctx.set_materialize_grads(False)
        return block.own(wide).clone(), taken, *trajectory

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, state: Tensor | None, _: Any, *trajectory: Tensor | None) -> tuple[Any, ...]:
        write_mask, drive, *saved = ctx.saved_tensors
        count, kept = ctx.counts
        tensors = _Tensors(write_mask, drive, StepWeights(*saved[:count]))
        back = _Backward(ctx.job, tensors, saved[count : count + kept], saved[count + kept :])
        found = back.run(state, list(trajectory))
        return None, None, found.state, None, found.drive, *found.weights


class _Backward:
    """The backward pass of a rollout.

    Args:
        job, tensors: of the rollout.
        kept: the widened state that each segment begins with.
        ran: of each step, which samples took it; empty if all took all.
    """

    def __init__(self, job: Job, tensors: _Tensors, kept: list[Tensor], ran: list[Tensor]) -> None:
        self._job, self._tensors, self._kept, self._ran = job, tensors, kept, ran
        self._sums = [
            None if t is None else torch.zeros_like(t, dtype=wide_dtype(t)) for t in (*tensors.weights, tensors.drive)
        ]

    def run(self, state: Tensor | None, trajectory: list[Tensor | None]) -> Gradients:
        """From the gradients of the last state and of the trajectory's; None is zero."""
        course, block = self._job.course, self._job.course.block
        given = next(g for g in (state, *trajectory) if g is not None)
        gradient = block.widen((torch.zeros_like(given) if state is None else state).to(wide_dtype(given)))
        for ends in reversed(course.segments):
            if course.shows(ends[-1]):
                shown = trajectory.pop()
                if shown is not None:
                    block.own(gradient).add_(shown)
            gradient = self._segment(ends, self._kept.pop(), gradient)
        *weights, drive = (
            None if s is None else s.to(t.dtype)  # type: ignore[union-attr]
            for s, t in zip(self._sums, (*self._tensors.weights, self._tensors.drive), strict=True)
        )
        return Gradients(block.own(gradient).to(given.dtype), StepWeights(*weights), drive)

    def _segment(self, ends: list[int], first: Tensor, gradient: Tensor) -> Tensor:
        """All chunks but the last are run again, and keep what their backward pass would."""
        chunks, states, checkpoints = list(pairwise(ends)), [first], []
        for start, end in chunks[:-1]:
            new, _, _, kept = _forward(self._job, self._tensors, states[-1], start, end, True)
            if self._ran:
                new = torch.where(_each(self._ran[start]), new, states[-1])
            self._job.course.block.fill(new)
            states.append(new)
            checkpoints.append(kept)
        for start, end in reversed(chunks):
            replays = len(checkpoints) < len(states)  # the last chunk kept nothing
            kept = None if replays else checkpoints.pop()
            call = _call(self._job, self._tensors, states.pop(), start, end, end - start if replays else 1)
            if not self._ran:
                gradient = self._chunk(call, kept, gradient)
                continue
            took = _each(self._ran[start])
            through = gradient.masked_fill(took, 0)
            gradient = self._chunk(call, kept, gradient.masked_fill(~took, 0), through)
        return gradient

    def _chunk(self, call: Call | None, kept: Tensor | None, gradient: Tensor, through: Tensor | None = None) -> Tensor:
        """``through``: what goes by the chunk."""
        if call is not None:
            found = self._job.kernels.backward(call, kept, None, gradient, None)
            gradient = found.state
            for total, part in zip(self._sums, (*found.weights, found.drive), strict=True):
                if total is not None and part is not None:
                    total += part
        if through is not None:
            gradient += through
        self._job.course.block.give_back(gradient)
        return gradient


def _call(job: Job, tensors: _Tensors, wide: Tensor, start: int, end: int, checkpoint_every: int) -> Call | None:
    """So many steps of the widened block, as the kernels take them; None where there are no cells."""
    if job.automaton is None:
        return None
    options = job.course.options
    counted = options.first_step + start, options.first_sample
    schedule = Schedule(end - start, checkpoint_every, options.seed or 0, 0, -1.0, *counted)
    return Call(job.automaton, schedule, wide, tensors.weights, tensors.drive, tensors.write_mask)


def _forward(job: Job, tensors: _Tensors, wide: Tensor, start: int, end: int, keep_checkpoints: bool) -> Outputs:
    call = _call(job, tensors, wide, start, end, 1)
    return Outputs(wide.clone(), None, None, None) if call is None else job.kernels.forward(call, keep_checkpoints)


def _each(samples: Tensor) -> Tensor:
    """``[B]`` to go with states."""
    return samples[:, None, None, None, None]
