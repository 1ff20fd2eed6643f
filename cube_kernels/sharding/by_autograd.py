"""A shared rollout whose derivatives are autograd's: on the reference backend, differentiable any number of times, and
under compilers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from cube_kernels import functional
from cube_kernels.recompute import recomputed_to_the_end
from cube_kernels.sharding.course import Course
from cube_kernels.update_rule import RuleParameters


def rollout(
    course: Course,
    x: Tensor,
    write_mask: Tensor | None,
    drive: Tensor | None,
    parameters: RuleParameters,
) -> tuple[Tensor, list[Tensor], Tensor]:
    """The last state, those of the trajectory, and the steps that each sample took.

    Args:
        course: how it goes.
        x: the block.
        write_mask, drive: widened.
        parameters: of the rule.
    """
    wide = course.block.widen(x)
    running = torch.ones(x.shape[0], dtype=torch.bool, device=x.device)
    taken = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
    kept = []
    for ends in course.segments:
        given = course, ends, wide, running, taken, write_mask, drive, *parameters
        wide, running, taken = recomputed_to_the_end(_segment, *given)
        if course.shows(ends[-1]):
            kept.append(course.block.own(wide))
    return course.block.own(wide), kept, taken


def _segment(
    course: Course,
    ends: list[int],
    wide: Tensor,
    running: Tensor,
    taken: Tensor,
    write_mask: Tensor | None,
    drive: Tensor | None,
    *parameters: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """From the first of the ends to the last, with an exchange before each chunk."""
    for start, end in pairwise(ends):
        old = course.block.filled(wide)
        new = _chunk(course, start, end, old, write_mask, drive, parameters)
        if course.options.tolerance is None:
            wide = new
            continue
        wide = torch.where(running[:, None, None, None, None], new, old)
        taken = taken + running
        running = running & ~course.converged(old.detach(), wide.detach())
    return wide, running, taken


def _chunk(
    course: Course,
    start: int,
    end: int,
    wide: Tensor,
    write_mask: Tensor | None,
    drive: Tensor | None,
    parameters: tuple[Tensor | None, ...],
) -> Tensor:
    lattice, options = course.block.lattice, course.options
    if lattice is None:
        return wide + nothing([wide, drive, *parameters])
    result: Tensor = functional.rollout(
        wide,
        RuleParameters(*(None if p is None else p.to(wide.dtype) for p in parameters)),
        lattice,
        course.rule,
        steps=end - start,
        drive=drive,
        write_mask=write_mask,
        seed=options.seed,
        checkpoint_every=1,  # these states are kept for the backward pass of a segment alone
        backend=options.backend,
        first_step=options.first_step + start,
        first_sample=options.first_sample,
    )
    return result


def nothing(tensors: list[Tensor | None]) -> Any:
    """Zero, which depends on the tensors: a rank without cells goes backward through what the others do. The product
    keeps a factor, so that its checkpoint is computed again as theirs are."""
    return sum(((t * t.new_zeros(())).sum() for t in tensors if t is not None), start=0.0)
