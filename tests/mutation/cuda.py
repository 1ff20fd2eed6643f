"""Bugs to plant in the CUDA sources, and which checkers are known to catch each.

``python -m tests.mutation.cuda`` prints the table of docs/cuda.md.
"""

from __future__ import annotations

from tests.building import SOURCE
from tests.mutation.planting import Mutation, table

FOLDER = SOURCE / "cuda"

SANITIZERS = {"plain": "", "address and undefined": "address,undefined", "thread": "thread"}
"""Each build of the C++ tests, with the kernels emulated, by what ``-fsanitize`` takes."""
COMPILED = "compiled by nvcc"
CHECKERS = [*SANITIZERS, COMPILED]

VALUES = "wrong values"
BARRIER = "a barrier that not all threads reach"
RACE = "data race"
POISON = "use-after-poison"
OVERFLOW = "heap-buffer-overflow"
MISALIGNED = "misaligned address"
UNWRITTEN = "a read of what nobody wrote"
BOUNDS = "out of bounds"
CRASH = "a crash"
ENDED = "a block that others need has ended"

EMULATED_SIGNS = {
    VALUES: "not so: ",
    BARRIER: "emulated CUDA: a barrier that not all threads reach",
    RACE: "ThreadSanitizer: data race",
    POISON: "AddressSanitizer: use-after-poison",
    OVERFLOW: "AddressSanitizer: heap-buffer-overflow",
    MISALIGNED: "misaligned address",
}
"""What each finding looks like in the output of the C++ tests; a crash prints nothing."""

COMPILED_SIGNS = {
    VALUES: "relative error|AssertionError: (result|trajectory|gradient)",
    BARRIER: "KernelError: .* divergent barrier",
    RACE: "KernelError: .*(touched since the last barrier|of the same launch|another value|, with no cluster barrier)",
    ENDED: "KernelError: .*exits while block . of the cluster may still touch",
    UNWRITTEN: "KernelError: .* nobody has written",
    BOUNDS: "KernelError: .*(lie outside of every tensor|in no tensor|bytes of shared memory)",
    MISALIGNED: "KernelError: .* is not a multiple of the access's",
}
"""The same where nvcc's PTX runs in tools/ptx."""

MUTATIONS = [
    Mutation(
        "no barrier between the hidden layer and the heads",
        "step.h",
        "                 if (slopes != nullptr) store<2>(slopes + row * layout.slope_stride + column, slope);\n"
        "               });\n  __syncthreads();",
        "                 if (slopes != nullptr) store<2>(slopes + row * layout.slope_stride + column, slope);\n"
        "               });",
        (VALUES, VALUES, RACE, RACE),
    ),
    Mutation(
        "no barrier between the measure of life and death",
        "step.h",
        "block.next_states(), block.first + cell);\n    });\n    Group::synchronize();",
        "block.next_states(), block.first + cell);\n    });",
        (VALUES, VALUES, RACE, RACE),
    ),
    Mutation(
        "a barrier for half of the threads",
        "step.h",
        "    update_tile(block, tile);\n    __syncthreads();",
        "    update_tile(block, tile);\n    if (threadIdx.x < block_threads / 2) __syncthreads();",
        (BARRIER, BARRIER, RACE, BARRIER),
    ),
    Mutation(
        "two blocks share a slice of the scratch",
        "step.h",
        "call.slices + blockIdx.x * layout.slice_bytes",
        "call.slices + blockIdx.x / 2 * layout.slice_bytes",
        (VALUES, VALUES, RACE, RACE),
    ),
    Mutation(
        "every block writes the first sample's number of steps",
        "rollout.h",
        "call.taken[sample.index] = step",
        "call.taken[0] = step",
        (VALUES, VALUES, RACE, RACE),
    ),
    Mutation(
        "shared memory for one cell too few",
        "layout.cpp",
        "layout.next = memory.shared_if_it_fits(state_bytes());",
        "layout.next = memory.shared_if_it_fits(state_bytes() - widths_.stride * number_);",
        (VALUES, POISON, "", BOUNDS),
    ),
    Mutation(
        "a sample's states written one cell too far",
        "step.h",
        "    T* sample = static_cast<T*>(to) + start(slice);",
        "    T* sample = static_cast<T*>(to) + start(slice) + block.plan.channels;",
        (CRASH, OVERFLOW, VALUES, BOUNDS),
    ),
    Mutation(
        "padding of the state never written",
        "step.h",
        "for_each(block.cells * padding,",
        "for_each(0 * padding,",
        (VALUES, VALUES, VALUES, UNWRITTEN),
    ),
    Mutation(
        "a vector load one number off",
        "step.h",
        "const T* from = block.state + (tile.first + row) * widths.stride + c;",
        "const T* from = block.state + (tile.first + row) * widths.stride + c + 1;",
        (VALUES, MISALIGNED, VALUES, MISALIGNED),
    ),
    Mutation(
        "rows past the last cell stored",
        "gradient.h",
        "    if (row >= tile.count) return;\n",
        "",
        ("", POISON, RACE, RACE),
    ),
    Mutation(
        "neighbors on the other side",
        "tables.cpp",
        "x = target(2, offset->axis[2], column)",
        "x = target(2, -offset->axis[2], column)",
        (VALUES, VALUES, VALUES, VALUES),
    ),
    Mutation(
        "the adjoint takes the opposite filter tap",
        "perceive.h",
        "add_product(sum, load<width>(bank + (f * plan.offset_count + o) * stride + c)",
        "add_product(sum, load<width>(bank + ((f + 1) * plan.offset_count - 1 - o) * stride + c)",
        (VALUES, VALUES, VALUES, VALUES),
    ),
    Mutation(
        "the backward pass draws the next step's fire mask",
        "gradient.h",
        "const Moment moment = sample.moment(step);",
        "const Moment moment = sample.moment(step + 1);",
        (VALUES, VALUES, VALUES, VALUES),
    ),
    Mutation(
        "two registers of a fragment exchanged",
        "product.h",
        "const Left left{{a.pair(row + g, k + t), a.pair(row + g + 8, k + t),",
        "const Left left{{a.pair(row + g + 8, k + t), a.pair(row + g, k + t),",
        (VALUES, VALUES, VALUES, VALUES),
    ),
    Mutation(
        "no barrier of the cluster after a step",
        "step.h",
        "  Group::join();\n  if (can_die)",
        "  if (can_die)",
        (VALUES, "", RACE, RACE),
    ),
    Mutation(
        "a neighbor looked for in the block's own memory",
        "group.h",
        "return in_block(owner, own) + row * stride;",
        "return own + row * stride;",
        (VALUES, VALUES, VALUES, UNWRITTEN),
    ),
    Mutation(
        "no barrier of the cluster before its last block ends",
        "rollout.h",
        "  Group::synchronize();\n  return sqrt",
        "  return sqrt",
        ("", "", "", ENDED),
    ),
]

if __name__ == "__main__":
    print(table(MUTATIONS, CHECKERS))
