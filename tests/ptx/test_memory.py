"""Atomics, address spaces, parameters and a module's arrays, from the ISA's definitions."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.ptx.programs import HEADER, edge_integers, element, run
from tools.ptx import KernelError, launch, load

SHARED = ".shared .align 16 .b8 tile[512];"

# --------------------------------------------------------------------------------------------------------- atomics

INTEGER_UPDATES: dict[str, tuple[Callable[[int, int], int], str]] = {
    "add": (lambda old, b: old + b, "u32 s32 u64"),
    "min": (min, "u32 s32 u64 s64"),
    "max": (max, "u32 s32 u64 s64"),
    "and": (lambda old, b: old & b, "b32 b64"),
    "or": (lambda old, b: old | b, "b32 b64"),
    "xor": (lambda old, b: old ^ b, "b32 b64"),
    "exch": (lambda old, b: b, "b32 b64"),
}
INTEGER_CASES = [(name, type_) for name, (_, types) in INTEGER_UPDATES.items() for type_ in types.split()]


@pytest.mark.parametrize("scope", ["global", "global.gpu.acq_rel", "relaxed.sys.global"])
@pytest.mark.parametrize(("name", "type_"), INTEGER_CASES)
def test_atomics_of_integers(name: str, type_: str, scope: str) -> None:
    """Four threads at each place, one after the other: each gets what the one before it left, in 2's complement."""
    dtype = np.dtype(f"{'i' if type_[0] == 's' else 'u'}{int(type_[1:]) // 8}")
    update, size = INTEGER_UPDATES[name][0], dtype.itemsize
    places, operands, old = edge_integers(dtype.str, 16), edge_integers(dtype.str, 64, seed=1), np.zeros(64, dtype)
    letter, held = {4: "r", 8: "d"}[size], places.tolist()
    run(
        f"""
        {element("%a1", size)} ld.global.b{8 * size} %{letter}11, [%d0];
        and.b32 %r1, %tid, 15; mad.wide.u32 %d1, %r1, {size}, %a0;
        atom.{scope}.{name}.{type_} %{letter}12, [%d1], %{letter}11;
        {element("%a2", size)} st.global.b{8 * size} [%d0], %{letter}12;
        """,
        *(places, operands, old),
        threads=64,
    )
    for thread in range(64):
        assert old[thread] == held[thread % 16]
        value = update(held[thread % 16], int(operands[thread])) & (1 << 8 * size) - 1
        held[thread % 16] = value - (1 << 8 * size) if dtype.kind == "i" and value >> (8 * size - 1) else value
    assert places.tolist() == held


def test_a_comparison_and_exchange() -> None:
    """Of the threads that expect what is there one succeeds, for the others it is there no more."""
    place, old = np.array([7], "u4"), np.zeros(32, "u4")
    run(
        f"add.u32 %r1, %tid, 100; atom.global.cas.b32 %r2, [%a0], 7, %r1; {element('%a1', 4)} st.b32 [%d0], %r2;",
        *(place, old),
    )
    (winner,) = np.flatnonzero(old == 7)
    assert place[0] == 100 + winner
    assert (np.delete(old, winner) == place[0]).all()


@pytest.mark.parametrize(("type_", "dtype"), [("f32", "f4"), ("f64", "f8")])
def test_atomic_sums_round_after_every_addition(type_: str, dtype: str) -> None:
    place, terms = np.ones(1, dtype), np.random.default_rng(0).standard_normal(32).astype(dtype)
    letter = {"f4": "r", "f8": "d"}[dtype]
    size = place.itemsize
    run(
        f"{element('%a1', size)} ld.global.b{8 * size} %{letter}9, [%d0]; red.global.add.{type_} [%a0], %{letter}9;",
        *(place, terms),
    )
    total = np.ones(1, dtype)
    for term in terms:
        total += term
    assert place[0] == total[0]


def test_atomic_sums_of_packed_halves() -> None:
    place, terms = np.array([1, -2], "f2"), np.arange(64, dtype="f2") / 8
    run(f"{element('%a1', 4)} ld.global.b32 %r9, [%d0]; red.global.add.noftz.f16x2 [%a0], %r9;", *(place, terms))
    total = np.array([1, -2], "f2")
    for pair in terms.reshape(-1, 2):
        total += pair
    assert place.tolist() == total.tolist()


def test_atomics_of_all_blocks_and_warps_are_in_order_with_each_other() -> None:
    counts, body = np.zeros(2, "u4"), "mov.u32 %r1, tile; {zero} {barrier} atom.shared.add.u32 %r2, [%r1], 1; {rest}"
    zero = "setp.eq.u32 %p1, %tid, 0; @%p1 st.shared.b32 [%r1], 0;"
    rest = "bar.sync 0; red.global.add.u32 [%a0], 1; ld.shared.b32 %r3, [%r1]; @%p1 red.global.add.u32 [%a0+4], %r3;"
    run(body.format(zero=zero, barrier="bar.sync 0;", rest=rest), counts, threads=64, grid=3, module=SHARED)
    assert counts.tolist() == [3 * 64, 3 * 64]
    with pytest.raises(KernelError, match="atom.shared.*warp 0 has touched since the last barrier"):
        run(body.format(zero=zero, barrier="", rest=rest), counts, threads=64, grid=3, module=SHARED)
    with pytest.raises(KernelError, match="reads what is written by an atomic operation of the same launch"):
        run("red.global.add.u32 [%a0], 1; ld.global.b32 %r1, [%a0];", counts, grid=2)
    with pytest.raises(KernelError, match="is not a multiple of the access's 8 bytes"):
        run("red.global.add.u64 [%a0+4], 1;", np.zeros(4, "u4"))
    with pytest.raises(KernelError, match="past the end"):
        run("red.global.add.u32 [%a0+8], 1;", counts)


# ---------------------------------------------------------------------------------------------------- local memory

DEPOT = ".local .align 16 .b8 depot[64];"


def test_local_memory_is_each_threads_own() -> None:
    """A store at an offset that differs between threads, then a load of all."""
    out = np.zeros((64, 4), "u4")
    run(
        f"""
        {DEPOT}
        mov.u64 %d1, depot; st.local.v4.b32 [%d1+16], {{%tid, %tid, %tid, %tid}};
        and.b32 %r1, %tid, 3; mad.wide.u32 %d2, %r1, 4, %d1; st.local.b32 [%d2+16], 1000;
        ld.local.v2.b32 {{%r2, %r3}}, [%d1+16]; ld.local.v2.b32 {{%r4, %r5}}, [%d1+24];
        {element("%a0", 16)} st.global.v4.b32 [%d0], {{%r2, %r3, %r4, %r5}};
        """,
        out,
        threads=64,
    )
    for thread in range(64):
        assert out[thread].tolist() == [1000 if place == thread % 4 else thread for place in range(4)]


def test_local_memory_that_nobody_wrote_holds_nan() -> None:
    """As a register does: compilers copy structures whose padding was never written."""
    out = np.zeros(32, "f4")
    run(f"{DEPOT} mov.u64 %d1, depot; ld.local.b32 %r1, [%d1]; {element('%a0', 4)} st.global.b32 [%d0], %r1;", out)
    assert np.isnan(out).all()


def test_local_memory_has_bounds() -> None:
    with pytest.raises(KernelError, match="4 bytes at offset 64 of 64 bytes of local memory"):
        run(f"{DEPOT} mov.u64 %d1, depot; st.local.b32 [%d1+64], 0;")
    with pytest.raises(KernelError, match="is not a multiple of the access's 8 bytes"):
        run(f"{DEPOT} mov.u64 %d1, depot; st.local.b64 [%d1+4], 0;")


# ----------------------------------------------------------------------------------------------- generic addresses


def test_generic_addresses_mean_the_space_they_came_from() -> None:
    """A third of the threads each work in shared, local and global memory, by one instruction."""
    out, there = np.zeros(32, "u4"), np.zeros(32, "u4")
    run(
        f"""
        {DEPOT}
        mov.u64 %d1, tile; cvta.shared.u64 %d1, %d1; mad.wide.u32 %d1, %tid, 4, %d1;
        mov.u64 %d2, depot; cvta.local.u64 %d2, %d2;
        cvta.to.global.u64 %d3, %a1; cvta.global.u64 %d3, %d3; mad.wide.u32 %d3, %tid, 4, %d3;
        rem.u32 %r1, %tid, 3; setp.eq.u32 %p1, %r1, 1; setp.eq.u32 %p2, %r1, 2;
        selp.b64 %d4, %d2, %d1, %p1; selp.b64 %d4, %d3, %d4, %p2;
        st.b32 [%d4], %tid; ld.b32 %r3, [%d4];
        {element("%a0", 4)} st.global.b32 [%d0], %r3;
        """,
        *(out, there),
        module=SHARED,
    )
    assert out.tolist() == list(range(32))
    assert there.tolist() == [thread if thread % 3 == 2 else 0 for thread in range(32)]


def test_generic_atomics_are_of_shared_and_global_memory() -> None:
    out, total = np.zeros(1, "u4"), np.zeros(1, "u4")
    body = f"""{DEPOT}
        mov.u64 %d1, tile; setp.eq.u32 %p1, %tid, 0; @%p1 st.shared.b32 [%d1], 0; bar.sync 0;
        cvta.{{space}}.u64 %d2, %d1; setp.lt.u32 %p2, %tid, 16; selp.b64 %d3, %a0, %d2, %p2;
        red.add.u32 [%d3], %tid; bar.sync 0; @%p1 ld.shared.b32 %r1, [%d1]; @%p1 st.global.b32 [%a1], %r1;"""
    run(body.format(space="shared"), *(out, total), threads=32, module=SHARED)
    assert (out[0], total[0]) == (sum(range(16)), sum(range(16, 32)))
    with pytest.raises(KernelError, match=r"thread \(16, 0, 0\): an atomic operation on local memory"):
        run(body.format(space="local"), *(out, total), threads=32, module=SHARED)


def test_a_generic_address_of_another_space_is_out_of_bounds() -> None:
    """Taken for global, an address of shared memory lies in no tensor; taken back, it is what it was."""
    shared = "mov.u64 %d1, tile; cvta.shared.u64 %d2, %d1;"
    run(f"{shared} cvta.to.shared.u64 %d3, %d2; st.shared.b32 [%d3], 1; ld.b32 %r1, [%d2];", module=SHARED)
    with pytest.raises(KernelError, match="lie in no tensor"):
        run(f"{shared} st.global.b32 [%d2], 1;", module=SHARED)
    with pytest.raises(KernelError, match="at offset 512 of 512 bytes of shared memory"):
        run(f"{shared} st.b32 [%d2+512], 1;", module=SHARED)


# ----------------------------------------------------------------------------------------- parameters and constants


def test_structures_as_parameters() -> None:
    """``struct { u8; double; float[3]; u64 }`` between two numbers: members at their offsets, also by an address."""
    text = f"""{HEADER}
    .visible .entry k(.param .u32 before, .param .align 8 .b8 middle[40], .param .u64 .ptr .align 1 out)
    {{
        .reg .b16 %h<9>; .reg .b32 %r<9>; .reg .b64 %d<9>;
        ld.param.u32 %r0, [before]; ld.param.u64 %d0, [out];
        ld.param.u8 %h1, [middle]; ld.param.f64 %d1, [middle+8];
        ld.param.v2.f32 {{%r2, %r3}}, [middle+16];
        mov.b64 %d2, middle; mov.u32 %r5, %tid.x; mad.wide.u32 %d3, %r5, 4, %d2; ld.param.f32 %r4, [%d3+16];
        ld.param.u64 %d4, [middle+32];
        cvt.u32.u16 %r6, %h1;
        setp.ne.u32 %p1, %r5, 2; @%p1 ret;
        st.global.v4.b32 [%d0], {{%r0, %r6, %r2, %r3}}; st.global.b32 [%d0+16], %r4;
        st.global.b64 [%d0+24], %d1; st.global.b64 [%d0+32], %d4;
        ret;
    }}""".replace(".reg .b16", ".reg .pred %p<3>; .reg .b16", 1)
    out, middle = np.zeros(40, "u1"), struct.pack("<B7xd3f4xQ", 200, -0.5, 1.5, 2.5, 3.5, 2**63 + 1)
    program = load(text)
    assert [(p.offset, p.bytes) for p in program.kernel.parameters] == [(0, 4), (8, 40), (48, 8)]
    launch(program, (1, 1, 1), (3, 1, 1), program.pack([7, middle, out.ctypes.data]), [out])
    assert struct.unpack("<IIfff4xdQ", out.tobytes()) == (7, 200, 1.5, 2.5, 3.5, -0.5, 2**63 + 1)
    with pytest.raises(ValueError, match="39 bytes for the 40 bytes of middle"):
        program.pack([7, middle[:-1], 0])
    with pytest.raises(ValueError, match="4 arguments for 3 parameters"):
        program.pack([7, middle, 0, 0])


def test_arrays_of_the_module() -> None:
    """Constants as they were initialized; what the initial values do not reach is zero."""
    out, module = np.zeros((3, 4), "u4"), ".const .align 8 .b32 table[4] = {5, 0xffffffff, -2}; .global .u64 wide = 9;"
    run(
        f"""
        mov.u64 %d1, table; mad.wide.u32 %d1, %tid, 4, %d1; {element("%a0", 4)}
        ld.const.b32 %r1, [%d1]; st.global.b32 [%d0], %r1;
        ld.const.b32 %r1, [table+4]; st.global.b32 [%d0+16], %r1;
        ld.global.u64 %d2, [wide]; cvt.u32.u64 %r2, %d2; st.global.b32 [%d0+32], %r2;
        """,
        out,
        threads=4,
        module=module,
    )
    assert out.tolist() == [[5, 2**32 - 1, 2**32 - 2, 0], [2**32 - 1] * 4, [9] * 4]
    with pytest.raises(KernelError, match="writes a constant"):
        run("mov.u64 %d1, table; st.global.b32 [%d1], 1;", module=module)


@pytest.mark.parametrize(
    ("type_", "bits", "expected"),
    [("s8", 32, 2**32 - 3), ("u8", 32, 253), ("s16", 64, 2**64 - 3), ("u16", 64, 2**16 - 3)],
)
def test_narrow_loads_extend_as_their_type_says(type_: str, bits: int, expected: int) -> None:
    data, out = np.full(1, -3, f"i{int(type_[1:]) // 8}"), np.zeros(1, f"u{bits // 8}")
    letter: Any = {32: "r", 64: "d"}[bits]
    run(f"ld.global.{type_} %{letter}1, [%a0]; st.global.b{bits} [%a1], %{letter}1;", *(data, out), threads=1)
    assert out[0] == expected
