"""Small kernels out of a few lines of PTX, run on numpy arrays."""

from __future__ import annotations

import itertools

import numpy as np

from tools.ptx import Statistics, launch, load

HEADER = ".version 8.7\n.target sm_80\n.address_size 64\n"


def run(
    body: str,
    *arrays: np.ndarray,
    threads: int | tuple[int, int, int] = 32,
    grid: int | tuple[int, int, int] = 1,
    values: tuple[int | float, ...] = (),
    module: str = "",
    dynamic_shared_bytes: int = 0,
    cluster: int = 1,
) -> Statistics:
    """Registers of the body: ``%a0``... hold the arrays' addresses, ``%v0``... the values (32 bits each), ``%tid`` the
    thread; ``%p``, ``%h``, ``%r``, ``%d`` with a number are free, of 1, 16, 32, 64 bits."""
    pointers, numbers = range(len(arrays)), range(len(values))
    parameters = [*(f".param .u64 a{i}" for i in pointers), *(f".param .u32 v{i}" for i in numbers)]
    text = f"""{HEADER}{module}
.visible .entry kernel({", ".join(parameters)})
{{
    .reg .pred %p<99>;
    .reg .b16 %h<99>;
    .reg .b32 %r<99>, %v<9>, %tid;
    .reg .b64 %d<99>, %a<9>;
    {" ".join(f"ld.param.u64 %a{i}, [a{i}];" for i in pointers)}
    {" ".join(f"ld.param.u32 %v{i}, [v{i}];" for i in numbers)}
    mov.u32 %tid, %tid.x;
    {body}
    ret;
}}
"""
    program = load(text, "kernel")
    block = (threads, 1, 1) if isinstance(threads, int) else threads
    arguments = program.pack([*(array.ctypes.data for array in arrays), *values])
    blocks = (grid, 1, 1) if isinstance(grid, int) else grid
    return launch(program, blocks, block, arguments, arrays, dynamic_shared_bytes, cluster=cluster)


LETTERS = {2: "h", 4: "r", 8: "d"}


def element(address: str, size: int) -> str:
    """``%d0`` = the address of the thread's element of an array."""
    return f"mad.wide.u32 %d0, %tid, {size}, {address};"


def apply(instruction: str, result: str, *operands: np.ndarray, immediates: tuple[str, ...] = ()) -> np.ndarray:
    """What an instruction makes of each thread's operands: arrays of one length, up to 1024, of 2, 4 or 8 bytes."""
    threads = operands[0].size
    out = np.zeros(threads, result)
    loads, names = [], []
    for i, operand in enumerate(operands):
        size = operand.itemsize
        name = f"%{LETTERS[size]}{i + 10}"
        loads.append(f"{element(f'%a{i + 1}', size)} ld.global.b{8 * size} {name}, [%d0];")
        names.append(name)
    size = out.itemsize
    target = f"%{LETTERS[size]}9"
    body = f"""{" ".join(loads)}
    {instruction} {", ".join([target, *names, *immediates])};
    {element("%a0", size)} st.global.b{8 * size} [%d0], {target};"""
    run(body, out, *(np.ascontiguousarray(operand) for operand in operands), threads=threads)
    return out


def edge_integers(dtype: str, count: int, seed: int = 0) -> np.ndarray:
    """Random bits, and in front of them what overflows and changes sign."""
    limits = np.iinfo(dtype)
    edges = np.array([0, 1, 2, limits.max, limits.max - 1, limits.min, limits.min + 1], dtype)
    bits = np.random.default_rng(seed).integers(0, 256, count * edges.itemsize, np.uint8).view(dtype)
    bits[: edges.size] = edges
    return bits


def pairs_of(values: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every pair, as two arrays."""
    left, right = zip(*itertools.product(values.tolist(), others.tolist()), strict=True)
    return np.array(left, values.dtype), np.array(right, others.dtype)


EDGE_FLOATS = np.array(
    [0.0, -0.0, 1.0, -1.0, 1.5, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3.4e38, -3.4e38, 1e-30, 0.1, 65504.0, 65520.0],
    np.float32,
)
