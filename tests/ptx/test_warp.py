"""What the lanes of a warp exchange, lane by lane from the ISA's definitions."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ptx.programs import run
from tools.ptx import KernelError

LANES = range(32)


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize(("by", "clamp", "segment"), [(1, 31, 0), (16, 31, 0), (3, 0, 0), (5, 7, 24), (2, 31, 16)])
def test_shuffles(mode: str, by: int, clamp: int, segment: int) -> None:
    out, there = np.zeros(64, "u4"), np.zeros(64, "u4")
    run(
        f"""
        mul.lo.u32 %r1, %tid, 7;
        shfl.sync.{mode}.b32 %r2|%p1, %r1, {by}, {segment << 8 | clamp}, -1;
        selp.b32 %r3, 1, 0, %p1;
        mad.wide.u32 %d0, %tid, 4, %a0; st.global.b32 [%d0], %r2;
        mad.wide.u32 %d0, %tid, 4, %a1; st.global.b32 [%d0], %r3;
        """,
        *(out, there),
        threads=64,
    )
    for thread in range(64):
        lane = thread % 32
        last = (lane & segment) | (clamp & ~segment & 31)
        first = lane & segment
        other = {"up": lane - by, "down": lane + by, "bfly": lane ^ by, "idx": first | (by & ~segment & 31)}[mode]
        inside = other >= last if mode == "up" else other <= last
        assert there[thread] == inside
        assert out[thread] == 7 * (thread - lane + (other if inside else lane))


def test_a_shuffle_needs_the_members_it_names() -> None:
    with pytest.raises(KernelError, match="are not at this instruction"):
        run("setp.lt.u32 %p1, %tid, 16; @%p1 shfl.sync.bfly.b32 %r1, %tid, 1, 31, -1;")
    run("setp.lt.u32 %p1, %tid, 16; @%p1 shfl.sync.bfly.b32 %r1, %tid, 1, 31, 0xffff;")


def test_votes_and_reductions() -> None:
    out = np.zeros((9, 32), "i4")
    instructions = [
        "vote.sync.ballot.b32 %r1, %p1, -1;",
        "vote.sync.any.pred %p2, %p1, -1; selp.b32 %r1, 1, 0, %p2;",
        "vote.sync.all.pred %p2, %p1, -1; selp.b32 %r1, 1, 0, %p2;",
        "vote.sync.uni.pred %p2, !%p1, -1; selp.b32 %r1, 1, 0, %p2;",
        "redux.sync.add.s32 %r1, %r0, -1;",
        "redux.sync.min.s32 %r1, %r0, -1;",
        "redux.sync.max.u32 %r1, %r0, -1;",
        "redux.sync.xor.b32 %r1, %r0, -1;",
        "elect.sync %r1|%p2, -1; selp.b32 %r1, 1, 0, %p2;",
    ]
    stores = [f"{code} st.global.b32 [%d0+{128 * i}], %r1;" for i, code in enumerate(instructions)]
    body = f"""setp.gt.u32 %p1, %tid, 29; sub.s32 %r0, %tid, 7; mul.lo.s32 %r0, %r0, 5;
    mad.wide.u32 %d0, %tid, 4, %a0; {" ".join(stores)}"""
    run(body, out)
    values = [5 * (lane - 7) for lane in LANES]
    parity = 0
    for value in values:
        parity ^= value
    wanted = [3 << 30, 1, 0, 0, sum(values), min(values), -5, parity]
    expected = np.array([value - 2**32 if value >= 2**31 else value for value in wanted])
    np.testing.assert_array_equal(out[:8], np.broadcast_to(expected[:, None], (8, 32)))
    assert out[8].tolist() == [1] + [0] * 31


def test_the_active_mask_of_two_paths() -> None:
    out = np.zeros(32, "u4")
    run(
        """
        mad.wide.u32 %d0, %tid, 4, %a0; setp.lt.u32 %p1, %tid, 5; @%p1 bra FEW;
        activemask.b32 %r1; st.global.b32 [%d0], %r1; bra DONE;
        FEW: activemask.b32 %r1; st.global.b32 [%d0], %r1;
        DONE:
        """,
        out,
    )
    assert out.tolist() == [0x1F] * 5 + [0xFFFFFFE0] * 27


SHARED = ".shared .align 16 .b8 tile[1024];"


@pytest.mark.parametrize("trans", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_matrices_from_shared_memory(count: int, trans: bool) -> None:
    """Row i of matrix j lies where lane 8j+i says: here, rows in reverse order."""
    stored = np.arange(8 * 64, dtype="u2")
    out = np.zeros((count, 32, 2), "u2")
    registers = ", ".join(f"%r{i + 1}" for i in range(count))
    stores = " ".join(f"st.global.b32 [%d0+{128 * i}], %r{i + 1};" for i in range(count))
    run(
        f"""
        mov.u32 %r20, tile; mad.lo.u32 %r21, %tid, 16, %r20; mad.wide.u32 %d0, %tid, 16, %a0;
        ld.global.v4.b32 {{%r22, %r23, %r24, %r25}}, [%d0]; st.shared.v4.b32 [%r21], {{%r22, %r23, %r24, %r25}};
        ld.global.v4.b32 {{%r22, %r23, %r24, %r25}}, [%d0+512]; st.shared.v4.b32 [%r21+512], {{%r22, %r23, %r24, %r25}};
        bar.sync 0;
        sub.s32 %r26, 63, %tid; mad.lo.u32 %r26, %r26, 16, %r20;
        ldmatrix.sync.aligned.m8n8.x{count}{".trans" if trans else ""}.shared.b16 {{{registers}}}, [%r26];
        mad.wide.u32 %d0, %tid, 4, %a1; {stores}
        """,
        *(stored, out),
        module=SHARED,
    )
    rows = stored.reshape(64, 8)
    for matrix in range(count):
        for lane in LANES:
            for half in (0, 1):
                row, column = lane // 4, 2 * (lane % 4) + half
                if trans:
                    row, column = column, row
                assert out[matrix, lane, half] == rows[63 - (8 * matrix + row), column]


@pytest.mark.parametrize("trans", [False, True])
def test_matrices_to_shared_memory(trans: bool) -> None:
    out = np.zeros((32, 8), "u2")
    values = np.arange(4 * 64, dtype="u2").reshape(4, 32, 2)
    loads = " ".join(f"ld.global.b32 %r{i + 1}, [%d0+{128 * i}];" for i in range(4))
    run(
        f"""
        mad.wide.u32 %d0, %tid, 4, %a0; {loads}
        mov.u32 %r20, tile; mad.lo.u32 %r21, %tid, 16, %r20;
        stmatrix.sync.aligned.m8n8.x4{".trans" if trans else ""}.shared.b16 [%r21], {{%r1, %r2, %r3, %r4}};
        ld.shared.v4.b32 {{%r22, %r23, %r24, %r25}}, [%r21];
        mad.wide.u32 %d0, %tid, 16, %a1; st.global.v4.b32 [%d0], {{%r22, %r23, %r24, %r25}};
        """,
        *(values, out),
        module=SHARED,
    )
    for matrix in range(4):
        for lane in LANES:
            for half in (0, 1):
                row, column = lane // 4, 2 * (lane % 4) + half
                if trans:
                    row, column = column, row
                assert out[8 * matrix + row, column] == values[matrix, lane, half]


def test_a_matrix_needs_the_whole_warp() -> None:
    with pytest.raises(KernelError, match="takes them all"):
        run(
            """
            mov.u32 %r20, tile; setp.lt.u32 %p1, %tid, 8; @%p1 bra SOME; bra DONE;
            SOME: ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%r20]; DONE:
            """,
            module=SHARED,
        )


def test_a_matrix_transposed_in_registers() -> None:
    """Each lane's two neighbors of a row become two neighbors of a column."""
    held, out = np.arange(128, dtype="u2").reshape(2, 32, 2), np.zeros((2, 32, 2), "u2")
    run(
        """
        mad.wide.u32 %d0, %tid, 4, %a0; ld.global.b32 %r1, [%d0];
        movmatrix.sync.aligned.m8n8.trans.b16 %r2, %r1;
        mad.wide.u32 %d0, %tid, 4, %a1; st.global.b32 [%d0], %r2;
        """,
        *(held, out),
        threads=64,
    )
    for warp in range(2):
        matrix = held[warp].reshape(8, 8)
        for lane in LANES:
            for half in (0, 1):
                assert out[warp, lane, half] == matrix[2 * (lane % 4) + half, lane // 4]
