"""Bugs to plant in the Triton kernels, and which tests are known to catch each.

``python -m tests.mutation.triton`` prints the table of docs/triton.md.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.building import SOURCE
from tests.mutation.planting import Mutation, table

FOLDER = SOURCE.parent / "cube_kernels" / "backends" / "triton"


class Checker(NamedTuple):
    tests: tuple[str, ...]
    variables: dict[str, str]


INTERPRETED = "tests/triton/interpreted"
CHECKERS = {
    "source": Checker(("tests/triton/test_source.py",), {}),
    "interpreted": Checker(
        (
            f"{INTERPRETED}/test_conformance.py::test_triton_agrees_with_reference_in_small_blocks",
            f"{INTERPRETED}/test_truths.py::test_rows_are_counted_in_64_bits",
            f"{INTERPRETED}/test_conformance.py::test_triton_agrees_with_reference_in_half_width",
            f"{INTERPRETED}/test_conformance.py::test_triton_agrees_with_reference",
        ),
        {"TRITON_INTERPRET": "1"},
    ),
    "compiled": Checker(("tests/triton/compiled",), {}),
}

VALUES = "wrong values"
BOUNDS = "out of bounds"
RACE = "a race between programs"
COLLISION = "two lanes that store to one place"
LAST_BITS = "lanes that differ"
OVERFLOW = "32-bit overflow"
MISALIGNED = "misaligned address"
RULE = "against the rules"

SIGNS = {
    VALUES: r"relative error|not close|not equal|AssertionError: (result|trajectory|gradient)|wrong rows",
    BOUNDS: r"(load|store) of \d+ bytes out of bounds|KernelError: .*(lie outside of every tensor|in no tensor)",
    RACE: r"a program (stores to|loads) what another program|KernelError: .* of the same launch",
    COLLISION: r"store of \d+ bytes, two lanes to one address",
    LAST_BITS: r"KernelError: .*another thread writes another value",
    OVERFLOW: r"overflow detected",
    MISALIGNED: r"bytes, misaligned|KernelError: .* is not a multiple of the access's",
    RULE: r"(loads_without_a_cast|assert not).*",
}
"""What each finding looks like in pytest's output."""

MUTATIONS = [
    Mutation(
        "a halo of one cell too many",
        "geometry.py",
        "there = wanted & (d >= 0) & (d < at.D)",
        "there = wanted & (d >= 0) & (d <= at.D)",
        ("", BOUNDS, BOUNDS),
    ),
    Mutation(
        "neighbors across the low faces of the rows",
        "geometry.py",
        "(h < at.H) & (w >= 0)",
        "(h < at.H) & (w >= -1)",
        ("", BOUNDS, BOUNDS),
    ),
    Mutation(
        "a store without its mask",
        "geometry.py",
        "tl.store(address, value.to(pointer.dtype.element_ty), mask=mask)",
        "tl.store(address, value.to(pointer.dtype.element_ty))",
        ("", COLLISION, RACE),
    ),
    Mutation(
        "a mirror that repeats the edge",
        "geometry.py",
        "position = tl.where(beyond > 0, 2 * (size - 1), 0)",
        "position = tl.where(beyond > 0, 2 * size - 1, 0)",
        ("", VALUES, VALUES),
    ),
    Mutation(
        "readers beyond a face, as if they were the forward pass's neighbors",
        "perception.py",
        '"periodic" if plan.boundary == "periodic" else "walls"',
        "plan.boundary",
        ("", VALUES, VALUES),
    ),
    Mutation(
        "blocks that overlap by a cell",
        "geometry.py",
        "first = tl.cast(block, tl.int64) * BLOCK",
        "first = tl.cast(block, tl.int64) * (BLOCK - 1)",
        ("", RACE, RACE),
    ),
    Mutation(
        "steps in place",
        "rollout.py",
        "new, *copies = homes or [torch.empty_like(x)]",
        "new, *copies = homes or [state]",
        ("", RACE, VALUES),
    ),
    Mutation(
        "all programs add to one part of the sums",
        "gradient.py",
        "part = partials + tl.program_id(0).to(tl.int64) * plan.weights",
        "part = partials",
        ("", RACE, RACE),
    ),
    Mutation(
        "all programs add to one part of the filters' sums by atomics, in no fixed order",
        "perception.py",
        """address = part + (p * plan.offsets + o) * plan.channels + channel
                add_to(address, tl.sum(x * g, axis=0), channel < plan.channels)""",
        """address = partials + (p * plan.offsets + o) * plan.channels + channel
                tl.atomic_add(address, tl.sum(x * g, axis=0), mask=channel < plan.channels)""",
        (RULE, "", ""),
    ),
    Mutation(
        "percept gradients of the last chunk of hidden units alone",
        "gradient.py",
        "multiply(d_hidden, weight, gradients[1 + p], storage, plan)",
        "multiply(d_hidden, weight, tl.zeros_like(own), storage, plan)",
        ("", VALUES, VALUES),
    ),
    Mutation(
        "products fused into sums across lanes",
        "launch.py",
        'OPTIONS = {"enable_fp_fusion": False}',
        'OPTIONS = {"enable_fp_fusion": True}',
        ("", "", LAST_BITS),
    ),
    Mutation(
        "a promise of alignment that does not hold",
        "geometry.py",
        "return tl.load(pointer + row[:, None] * stride + start + column[None, :], mask=mask",
        "return tl.load(tl.multiple_of(pointer + row[:, None] * stride + start + column[None, :], [16, 16]), mask=mask",
        ("", "", MISALIGNED),
    ),
    Mutation(
        "addresses in 32 bits",
        "geometry.py",
        "tl.cast(block, tl.int64)",
        "tl.cast(block, tl.int32)",
        ("", OVERFLOW, VALUES),
    ),
    Mutation(
        "arithmetic in half width",
        "geometry.py",
        "mask=mask, other=0.0).to(tl.float32)",
        "mask=mask, other=0.0)",
        (RULE, "", ""),
    ),
    Mutation(
        "a masked load of whatever there is",
        "geometry.py",
        "mask=mask, other=0.0)",
        "mask=mask)",
        (RULE, "", ""),
    ),
    Mutation(
        "the adjoint takes the opposite filter tap",
        "perception.py",
        "total += g * filter_taps(bank, p, o, plan)[None, :]",
        "total += g * filter_taps(bank, p, plan.offsets - 1 - o, plan)[None, :]",
        ("", VALUES, VALUES),
    ),
    Mutation(
        "sample and step exchanged in the fire mask's counter",
        "step.py",
        "at.cell // 4, step, sample.to(tl.int32), none)",
        "at.cell // 4, sample.to(tl.int32), step, none)",
        ("", VALUES, VALUES),
    ),
]


if __name__ == "__main__":
    print(table(MUTATIONS, list(CHECKERS)))
