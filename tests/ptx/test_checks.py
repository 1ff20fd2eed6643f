"""Every check catches what it is for, says where, and lets the repaired kernel pass."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.ptx.programs import HEADER, run
from tools.ptx import KernelError, UnsupportedError, load

SHARED = ".shared .align 16 .b8 tile[512];"
MINE = "mov.u32 %r20, tile; mad.lo.u32 %r21, %tid, 4, %r20; sub.s32 %r22, 63, %tid; mad.lo.u32 %r22, %r22, 4, %r20;"
SLOT = "mad.wide.u32 %d0, %tid, 4, %a0;"


def test_a_missing_barrier_between_write_and_read() -> None:
    out = np.zeros(64, "u4")
    program = "{mine} st.shared.b32 [%r21], %tid; {barrier} ld.shared.b32 %r1, [%r22]; {slot} st.global.b32 [%d0], %r1;"
    run(program.format(mine=MINE, slot=SLOT, barrier="bar.sync 0;"), out, threads=64, module=SHARED)
    assert out.tolist() == list(range(63, -1, -1))
    with pytest.raises(KernelError, match=r"kernel kernel, PTX line \d+: ld.shared.b32 .*warp \d has touched since"):
        run(program.format(mine=MINE, slot=SLOT, barrier=""), out, threads=64, module=SHARED)


def test_a_missing_barrier_between_read_and_write() -> None:
    program = (
        "{mine} st.shared.b32 [%r21], %tid; bar.sync 0; ld.shared.b32 %r1, [%r22]; {barrier} st.shared.b32 [%r21], 5;"
    )
    run(program.format(mine=MINE, barrier="bar.sync 0;"), threads=64, module=SHARED)
    with pytest.raises(KernelError, match="writes shared memory .*touched since the last barrier"):
        run(program.format(mine=MINE, barrier=""), threads=64, module=SHARED)


def test_two_values_for_one_place() -> None:
    program = "mov.u32 %r20, tile; {value} st.shared.b32 [%r20], %r1;"
    run(program.format(value="mov.u32 %r1, 7;"), threads=64, module=SHARED)  # redundant, but one value
    with pytest.raises(KernelError, match="another value"):
        run(program.format(value="mov.u32 %r1, %tid;"), threads=32, module=SHARED)


def test_uninitialized_shared_memory() -> None:
    with pytest.raises(KernelError, match="nobody has written, at offset 8"):
        run(
            "mov.u32 %r20, tile; st.shared.v2.b32 [%r20], {%tid, %tid}; ld.shared.b32 %r1, [%r20+8];",
            threads=1,
            module=SHARED,
        )


def test_shared_memory_out_of_bounds() -> None:
    with pytest.raises(KernelError, match="4 bytes at offset 512 of 512 bytes of shared memory"):
        run("mov.u32 %r20, tile; st.shared.b32 [%r20+512], 0;", threads=1, module=SHARED)
    dynamic = ".extern .shared .align 16 .b8 tile[];"
    run("mov.u32 %r20, tile; st.shared.b32 [%r20+512], 0;", threads=1, module=dynamic, dynamic_shared_bytes=516)


def test_a_barrier_that_some_threads_never_reach() -> None:
    with pytest.raises(KernelError, match=r"divergent barrier: 60 of 64 threads wait here, 4 have exited"):
        run("setp.lt.u32 %p1, %tid, 4; @%p1 ret; bar.sync 0;", threads=64)


def test_two_barriers_on_two_paths() -> None:
    with pytest.raises(KernelError, match=r"divergent barrier: \d+ of 64 threads wait here, \d+ wait at PTX line"):
        run("setp.lt.u32 %p1, %tid, 32; @%p1 bra A; bar.sync 0; bra B; A: bar.sync 0; B:", threads=64)


@pytest.mark.parametrize(
    ("offset", "where"), [(128, "0 bytes past the end"), (124, ""), (-4, "before the start|lie in no tensor")]
)
def test_global_bounds(offset: int, where: str) -> None:
    body = f"setp.eq.u32 %p1, %tid, 3; @%p1 ld.global.b32 %r1, [%a0+{offset}];"
    if not where:
        run(body, np.zeros(32, "u4"))
    else:
        with pytest.raises(KernelError, match=rf"thread \(3, 0, 0\): .*({where})"):
            run(body, np.zeros(32, "u4"))


def test_a_hole_between_two_tensors() -> None:
    memory = np.zeros(100, "u4")
    body = "mad.wide.u32 %d0, %tid, 4, %a0; ld.global.b32 %r1, [%d0];"
    with pytest.raises(KernelError, match=r"thread \(10, 0, 0\).*0 bytes past the end of one of 40 bytes"):
        run(body, memory[:10], memory[20:])


def test_alignment() -> None:
    run("ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%a0+16];", np.zeros(32, "u4")[:32])
    data = np.zeros(64, "u4")
    start = 1 + (-data.ctypes.data // 4) % 4
    with pytest.raises(KernelError, match="is not a multiple of the access's 16 bytes"):
        run("ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%a0];", data[start:])
    with pytest.raises(KernelError, match="is not a multiple"):
        run("mov.u32 %r20, tile; st.shared.v2.b32 [%r20+4], {%tid, %tid};", threads=1, module=SHARED)


@pytest.mark.parametrize("blocks", [2, 300])
def test_blocks_that_write_one_place(blocks: int) -> None:
    out = np.zeros(blocks * 64, "u4")
    program = """mov.u32 %r1, %ctaid.x; mad.lo.u32 %r2, %r1, {stride}, %tid;
    mad.wide.u32 %d0, %r2, 4, %a0; st.global.b32 [%d0], %r1;"""
    run(program.format(stride=64), out, threads=64, grid=blocks)
    assert (out.reshape(blocks, 64) == np.arange(blocks)[:, None]).all()
    with pytest.raises(KernelError, match=r"writes what is also touched by block \d+"):
        run(program.format(stride=63), out, threads=64, grid=blocks)


@pytest.mark.parametrize("blocks", [2, 300])
def test_a_block_that_reads_what_another_writes(blocks: int) -> None:
    """In place, shifted by one: the cells at the edges of blocks are in a race."""
    program = """mov.u32 %r1, %ctaid.x; mad.lo.u32 %r2, %r1, 64, %tid; mad.wide.u32 %d1, %r2, 4, %a0;
    ld.global.b32 %r3, [%d1+4]; mad.wide.u32 %d1, %r2, 4, {to}; st.global.b32 [%d1], %r3;"""
    data, out = np.arange(blocks * 64 + 1, dtype="u4"), np.zeros(blocks * 64, "u4")
    run(program.format(to="%a1"), data, out, threads=64, grid=blocks)
    assert (out == data[1:]).all()
    with pytest.raises(KernelError, match="of the same launch"):
        run(program.format(to="%a0"), data, out, threads=64, grid=blocks)


def test_a_launch_that_never_ends() -> None:
    with pytest.raises(KernelError, match="still runs after"):
        run("AGAIN: bra AGAIN;", threads=1)


def test_a_predicate_that_was_never_written() -> None:
    with pytest.raises(KernelError, match="predicate %p7 was never written"):
        run("@%p7 mov.u32 %r1, 0;")


def test_trap() -> None:
    with pytest.raises(KernelError, match=r"block \(1, 0, 0\), thread \(0, 0, 0\): trap"):
        run("mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 1; @%p1 trap;", grid=2)


REFUSED = [
    # tensor cores of warpgroups, and products that nobody asked for yet
    "wgmma.fence.sync.aligned;",
    "tcgen05.wait::ld.sync.aligned;",
    "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%r1, %r2}, {%r1, %r2, %r3, %r4}, {%r5, %r6}, {%r1, %r2};",
    "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%r1, %r2, %r3, %r4}, {%r1, %r2, %r3, %r4}, {%r5, %r6}, "
    "{%r1, %r2, %r3, %r4};",
    "wmma.load.a.sync.aligned.row.m16n16k16.global.f16 {%r1, %r2, %r3, %r4, %r5, %r6, %r7, %r8}, [%a0];",
    "ldmatrix.sync.aligned.m16n16.x1.trans.shared.b8 {%r1, %r2}, [%r3];",
    # asynchronous copies beyond cp.async, and what they are waited for with
    "cp.async.bulk.commit_group;",
    "cp.async.mbarrier.arrive.shared.b64 [%r1];",
    "mbarrier.init.shared.b64 [%r1], 1;",
    "cp.async.ca.shared.global [%r1], [%a0], 32;",
    "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%a0], [%r1], 4;",
    # an arrival that orders nothing, atomics between blocks of a cluster, and barriers of a part of a block
    "barrier.cluster.arrive.relaxed;",
    "atom.shared::cluster.add.u32 %r1, [%r2], 1;",
    "getctarank.u64 %r1, %d1;",
    "bar.sync 1, 64;",
    "bar.arrive 1, 64;",
    "bar.red.popc.u32 %r1, 0, %p1;",
    "griddepcontrol.wait;",
    # memory
    "ld.global.v3.b32 {%r1, %r2, %r3}, [%a0];",
    "ld.global.b128 %d1, [%a0];",
    "atom.global.inc.u32 %r1, [%a0], 5;",
    "atom.global.cas.b16 %h1, [%a0], %h2, %h3;",
    "red.global.add.v2.f32 [%a0], {%r1, %r2};",
    "isspacep.shared %p1, %d1;",
    "cvta.param.u64 %d1, %d2;",
    "tex.1d.v4.f32.s32 {%r1, %r2, %r3, %r4}, [%d1, {%r5}];",
    # the rest
    "add.rz.f32 %r1, %r2, %r3;",
    "add.s32 %d1, %r2, %r3;",
    "match.any.sync.b32 %r1, %r2, -1;",
    "shfl.up.b32 %r1, %r2, 1, 0;",
    "mov.u32 %r1, %clock;",
    "call foo;",
    "brx.idx %r1, table;",
    "nanosleep.u32 20;",
]


@pytest.mark.parametrize("instruction", REFUSED, ids=lambda text: text.split()[0].rstrip(";"))
def test_what_is_not_known_is_refused_by_name_before_anything_runs(instruction: str) -> None:
    out = np.zeros(32, "u4")
    with pytest.raises(UnsupportedError, match=re.escape(instruction.split()[0].rstrip(";"))):
        run(f"{SLOT} st.global.b32 [%d0], 1; {instruction}", out)
    assert not out.any()


def test_everything_that_is_refused_is_named_at_once() -> None:
    body = "wgmma.fence.sync.aligned; setmaxnreg.inc.sync.aligned.u32 240;"
    with pytest.raises(UnsupportedError, match=r"(?s)kernel k, compiled for sm_90a.*wgmma.*setmaxnreg"):
        load(f"{HEADER.replace('sm_80', 'sm_90a')}.entry k() {{ {body} ret; }}")


# ---------------------------------------------------------------------------------------------- asynchronous copies

COPY = """mov.u32 %r20, tile; mad.lo.u32 %r21, %tid, 16, %r20; mad.wide.u32 %d0, %tid, 16, %a0;
cp.async.cg.shared.global [%r21], [%d0], 16{filled}; cp.async.commit_group;"""
READ = """mad.wide.u32 %d0, %tid, 16, %a1;
ld.shared.v4.b32 {%r1, %r2, %r3, %r4}, [%r21]; st.global.v4.b32 [%d0], {%r1, %r2, %r3, %r4};"""
WIDE = ".shared .align 16 .b8 tile[2048];"


def test_a_copy_is_there_after_the_wait() -> None:
    data, out = np.arange(128, dtype="u4"), np.zeros(128, "u4")
    run(COPY.format(filled="") + "cp.async.wait_group 0;" + READ, data, out, module=WIDE)
    assert (out == data).all()


def test_a_copy_without_a_wait() -> None:
    data, out = np.arange(128, dtype="u4"), np.zeros(128, "u4")
    with pytest.raises(KernelError, match="asynchronous copy to there has not been waited for"):
        run(COPY.format(filled="") + "bar.sync 0;" + READ, data, out, module=WIDE)


def test_a_wait_that_leaves_the_youngest_group() -> None:
    """The second group may be under way after ``wait_group 1``, the first may not."""
    second = "cp.async.cg.shared.global [%r21+1024], [%d0], 16; cp.async.commit_group; cp.async.wait_group 1;"
    data, out = np.arange(128, dtype="u4"), np.zeros(128, "u4")
    run(COPY.format(filled="") + second + READ, data, out, module=WIDE)
    assert (out == data).all()
    with pytest.raises(KernelError, match="has not been waited for"):
        run(COPY.format(filled="") + second + READ.replace("[%r21]", "[%r21+1024]"), data, out, module=WIDE)


def test_other_warps_need_a_barrier_after_the_wait() -> None:
    data, out = np.arange(256, dtype="u4"), np.zeros(256, "u4")
    program = (
        COPY.format(filled="") + "cp.async.wait_all; {barrier} sub.s32 %r5, 63, %tid; mad.lo.u32 %r21, %r5, 16, %r20;"
    )
    run(program.format(barrier="bar.sync 0;") + READ, data, out, threads=64, module=WIDE)
    assert (out.reshape(64, 4) == data.reshape(64, 4)[::-1]).all()
    with pytest.raises(KernelError, match="touched since the last barrier"):
        run(program.format(barrier="") + READ, data, out, threads=64, module=WIDE)


def test_a_copy_onto_what_others_still_read() -> None:
    data, out = np.arange(256, dtype="u4"), np.zeros(256, "u4")
    read = "sub.s32 %r5, 63, %tid; mad.lo.u32 %r6, %r5, 16, %r20; ld.shared.b32 %r7, [%r6];"
    again = "cp.async.cg.shared.global [%r21], [%d0], 16; cp.async.wait_all;"
    program = COPY.format(filled="") + "cp.async.wait_all; bar.sync 0;" + read
    run(f"{program} bar.sync 0; {again}", data, out, threads=64, module=WIDE)
    with pytest.raises(KernelError, match="touched since the last barrier"):
        run(f"{program} {again}", data, out, threads=64, module=WIDE)


def test_a_copy_of_nothing_fills_with_zeros_and_reads_nothing() -> None:
    data, out = np.arange(1, 65, dtype="u4"), np.ones(128, "u4")  # half of what 32 threads would read
    filled = "setp.lt.u32 %p1, %tid, 16; selp.b32 %r8, 16, 0, %p1;"
    statistics = run(filled + COPY.format(filled=", %r8") + "cp.async.wait_all;" + READ, data, out, module=WIDE)
    assert (out[:64] == data).all()
    assert not out[64:].any()
    assert statistics.global_load_bytes == 256
    with pytest.raises(KernelError, match="past the end"):
        run(COPY.format(filled="") + "cp.async.wait_all;" + READ, data, out, module=WIDE)
