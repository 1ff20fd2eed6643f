"""Bugs to plant in the CUDA sources, and which checkers of the emulated kernels are known to catch each.

``python -m tests.cuda.mutations`` prints the table of docs/cuda.md.
"""

from __future__ import annotations

from typing import NamedTuple

CHECKERS = {"plain": "", "address and undefined": "address,undefined", "thread": "thread"}
"""Each build of the C++ tests by what ``-fsanitize`` takes."""

VALUES = "wrong values"
BARRIER = "a barrier that not all threads reach"
RACE = "data race"
POISON = "use-after-poison"
OVERFLOW = "heap-buffer-overflow"
MISALIGNED = "misaligned address"
CRASH = "a crash"

SIGNS = {
    VALUES: "not so: ",
    BARRIER: "emulated CUDA: a barrier that not all threads reach",
    RACE: "ThreadSanitizer: data race",
    POISON: "AddressSanitizer: use-after-poison",
    OVERFLOW: "AddressSanitizer: heap-buffer-overflow",
    MISALIGNED: "misaligned address",
}
"""What each finding looks like in the output; a crash prints nothing."""


class Mutation(NamedTuple):
    bug: str
    file: str  # under csrc/cuda
    right: str  # occurs in it once
    wrong: str
    plain: str
    address: str
    thread: str

    @property
    def caught(self) -> dict[str, str]:
        """What each checker finds; "" for nothing."""
        return dict(zip(CHECKERS, (self.plain, self.address, self.thread), strict=True))


MUTATIONS = [
    Mutation(
        "no barrier between the hidden layer and the heads",
        "step.h",
        "                 if (slopes != nullptr) store<2>(slopes + row * layout.slope_stride + column, slope);\n"
        "               });\n  __syncthreads();",
        "                 if (slopes != nullptr) store<2>(slopes + row * layout.slope_stride + column, slope);\n"
        "               });",
        VALUES,
        VALUES,
        RACE,
    ),
    Mutation(
        "no barrier between the measure of life and death",
        "step.h",
        "lives(plan, block.tables, block.next, stride, cell);\n    });\n    __syncthreads();",
        "lives(plan, block.tables, block.next, stride, cell);\n    });",
        VALUES,
        VALUES,
        RACE,
    ),
    Mutation(
        "a barrier for half of the threads",
        "step.h",
        "    update_tile(block, tile);\n    __syncthreads();",
        "    update_tile(block, tile);\n    if (threadIdx.x < block_threads / 2) __syncthreads();",
        BARRIER,
        BARRIER,
        RACE,
    ),
    Mutation(
        "two blocks share a slice of the scratch",
        "step.h",
        "call.slices + blockIdx.x * layout.slice_bytes",
        "call.slices + blockIdx.x / 2 * layout.slice_bytes",
        VALUES,
        VALUES,
        RACE,
    ),
    Mutation(
        "every block writes the first sample's number of steps",
        "rollout.h",
        "call.taken[sample.index] = step",
        "call.taken[0] = step",
        VALUES,
        VALUES,
        RACE,
    ),
    Mutation(
        "shared memory for one cell too few",
        "layout.cpp",
        "layout.next = memory.shared_if_it_fits(state_bytes());",
        "layout.next = memory.shared_if_it_fits(state_bytes() - widths_.stride * number_);",
        "",
        POISON,
        "",
    ),
    Mutation(
        "a sample's states written one cell too far",
        "step.h",
        "    T* sample = static_cast<T*>(to) + start(slice);",
        "    T* sample = static_cast<T*>(to) + start(slice) + block.plan.channels;",
        CRASH,
        OVERFLOW,
        VALUES,
    ),
    Mutation(
        "padding of the state never written",
        "step.h",
        "for_each(block.cells * padding,",
        "for_each(0 * padding,",
        VALUES,
        VALUES,
        VALUES,
    ),
    Mutation(
        "a vector load one number off",
        "step.h",
        "const T* from = block.state + (tile.first + row) * widths.stride + c;",
        "const T* from = block.state + (tile.first + row) * widths.stride + c + 1;",
        VALUES,
        MISALIGNED,
        VALUES,
    ),
    Mutation(
        "rows past the last cell stored",
        "gradient.h",
        "    if (row >= tile.count) return;\n",
        "",
        "",
        POISON,
        RACE,
    ),
    Mutation(
        "neighbors on the other side",
        "tables.cpp",
        "x = target(2, offset->axis[2], column)",
        "x = target(2, -offset->axis[2], column)",
        VALUES,
        VALUES,
        VALUES,
    ),
    Mutation(
        "the adjoint takes the opposite filter tap",
        "perceive.h",
        "add_product(sum, load<width>(bank + (f * plan.offset_count + o) * stride + c)",
        "add_product(sum, load<width>(bank + ((f + 1) * plan.offset_count - 1 - o) * stride + c)",
        VALUES,
        VALUES,
        VALUES,
    ),
    Mutation(
        "the backward pass draws the next step's fire mask",
        "gradient.h",
        "const Moment moment = sample.moment(step);",
        "const Moment moment = sample.moment(step + 1);",
        VALUES,
        VALUES,
        VALUES,
    ),
    Mutation(
        "two registers of a fragment exchanged",
        "product.h",
        "const Left left{{a.pair(row + g, k + t), a.pair(row + g + 8, k + t),",
        "const Left left{{a.pair(row + g + 8, k + t), a.pair(row + g, k + t),",
        VALUES,
        VALUES,
        VALUES,
    ),
]


def table() -> str:
    """In Markdown: what each checker makes of each bug."""
    head = "| planted bug | " + " | ".join(CHECKERS) + " |"
    rows = [f"| {m.bug} | " + " | ".join(found or "nothing" for found in m.caught.values()) + " |" for m in MUTATIONS]
    return "\n".join([head, "|---" * (1 + len(CHECKERS)) + "|", *rows])


if __name__ == "__main__":
    print(table())
