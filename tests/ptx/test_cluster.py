"""Thread block clusters: instructions by the ISA's definitions, and every check with the repaired kernel beside it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ptx.programs import run
from tools.ptx import KernelError

SHARED = ".shared .align 16 .b8 tile[512];"
SYNC = "barrier.cluster.arrive; barrier.cluster.wait;"

# %r1: the block's rank, %r2: the cluster's size, %r3: the rank of the next block, around a ring; %r4: the thread's own
# place in shared memory; %d2: the same place in the next block; %d0: the thread's place in the first array.
RING = f"""
    mov.u32 %r1, %cluster_ctarank; mov.u32 %r2, %cluster_nctarank; add.u32 %r3, %r1, 1; rem.u32 %r3, %r3, %r2;
    mov.u32 %r4, tile; mad.lo.u32 %r4, %tid, 4, %r4;
    cvt.u64.u32 %d1, %r4; cvta.shared.u64 %d1, %d1; mapa.u64 %d2, %d1, %r3;
    mov.u32 %r5, %ctaid.x; mov.u32 %r6, %ntid.x; mad.lo.u32 %r6, %r5, %r6, %tid; mad.wide.u32 %d0, %r6, 4, %a0;
    setp.eq.u32 %p1, %r1, 0; setp.eq.u32 %p2, %r1, 1;
    {SYNC}
"""
SIZES = [2, 4, 8]


def ring(body: str, *arrays: np.ndarray, cluster: int = 2, threads: int = 64, grid: int = 0) -> None:
    run(RING + body, *arrays, threads=threads, grid=grid or cluster, module=SHARED, cluster=cluster)


# ---------------------------------------------------------------------------------------------------- instructions


@pytest.mark.parametrize("cluster", [1, *SIZES])
def test_special_registers(cluster: int) -> None:
    """Of every block in a grid of three dimensions; clusters lie along x."""
    names = [
        f"{name}.{axis}" for name in ("clusterid", "nclusterid", "cluster_ctaid", "cluster_nctaid") for axis in "xyz"
    ]
    names += ["cluster_ctarank", "cluster_nctarank"]
    out = np.zeros((2, 3, 16, len(names)), "u4")
    number = "mov.u32 %r1, %ctaid.z; mov.u32 %r2, %ctaid.y; mov.u32 %r3, %ctaid.x; mad.lo.u32 %r1, %r1, 3, %r2;"
    stores = "".join(f"mov.b32 %r4, %{name}; st.global.b32 [%d0+{4 * i}], %r4;" for i, name in enumerate(names))
    place = f"mad.lo.u32 %r1, %r1, 16, %r3; mad.wide.u32 %d0, %r1, {4 * len(names)}, %a0;"
    run(number + place + stores, out, threads=1, grid=(16, 3, 2), cluster=cluster)
    for z, y, x in np.ndindex(2, 3, 16):
        identity, rank = (x // cluster, y, z), x % cluster
        expected = [*identity, 16 // cluster, 3, 2, rank, 0, 0, cluster, 1, 1, rank, cluster]
        assert out[z, y, x].tolist() == expected


ADDRESSES = {
    "generic": "ld.b32 %r7, [%d2];",
    "volatile": "ld.volatile.b32 %r7, [%d2];",
    "32 bits": "mapa.shared::cluster.u32 %r8, %r4, %r3; ld.shared::cluster.b32 %r7, [%r8];",
    "64 bits": "cvt.u64.u32 %d3, %r4; mapa.shared::cluster.u64 %d4, %d3, %r3; ld.shared::cluster.b32 %r7, [%d4];",
    "converted": "cvta.to.shared::cluster.u64 %d3, %d2; cvt.u32.u64 %r8, %d3; ld.shared::cluster.b32 %r7, [%r8];",
}


@pytest.mark.parametrize("cluster", [1, *SIZES])
@pytest.mark.parametrize("load", ADDRESSES.values(), ids=ADDRESSES.keys())
def test_every_block_reads_what_the_next_one_has_stored(load: str, cluster: int) -> None:
    out = np.zeros((3, cluster, 64), "u4")
    body = f"mad.lo.u32 %r9, %r5, 1000, %tid; st.shared.b32 [%r4], %r9; {SYNC} {load} st.global.b32 [%d0], %r7; {SYNC}"
    ring(body, out, cluster=cluster, grid=3 * cluster)
    stored = np.arange(3 * cluster)[:, None] * 1000 + np.arange(64)
    assert (out == np.roll(stored.reshape(out.shape), -1, axis=1)).all()


@pytest.mark.parametrize("cluster", SIZES)
@pytest.mark.parametrize(
    "store",
    ["st.v2.b32 [%d4], {%r6, %r5};", "cvta.to.shared.u64 %d4, %d4; st.shared::cluster.v2.b32 [%d4], {%r6, %r5};"],
    ids=["generic", "shared::cluster"],
)
@pytest.mark.parametrize(("threads", "clusters"), [(40, 5), (1024, 5), (96, 90)])
def test_the_first_block_sums_what_all_have_stored_to_it(store: str, cluster: int, threads: int, clusters: int) -> None:
    """What other blocks have written counts as written. Of 1024 threads a few blocks are a batch, of 96 no multiple of
    a cluster would fill one."""
    out = np.zeros((clusters, cluster), "u4")
    run(
        f"""{RING}
        mov.u64 %d3, tile; cvta.shared.u64 %d3, %d3; mapa.u64 %d4, %d3, 0;
        mad.wide.u32 %d4, %r1, 8, %d4; setp.ne.u32 %p3, %tid, 0; @%p3 bra MEET; {store}
        MEET: {SYNC} or.b32 %r7, %r1, %tid; setp.ne.u32 %p3, %r7, 0; @%p3 ret;
        mov.u32 %r8, 0; mov.u32 %r9, tile; mov.u32 %r10, 0;
        NEXT: ld.shared.v2.b32 {{%r11, %r12}}, [%r9]; add.u32 %r8, %r8, %r12;
        add.u32 %r9, %r9, 8; add.u32 %r10, %r10, 1; setp.lt.u32 %p3, %r10, %r2; @%p3 bra NEXT;
        mad.wide.u32 %d0, %r5, 4, %a0; st.global.b32 [%d0], %r8;
        """,
        out,
        threads=threads,
        grid=out.size,
        module=SHARED,
        cluster=cluster,
    )
    assert (out[:, 0] == np.arange(out.size).reshape(out.shape).sum(axis=1)).all()
    assert not out[:, 1:].any()


def test_one_instruction_may_reach_the_own_block_others_and_global_memory() -> None:
    out, there = np.zeros((2, 64), "u4"), np.arange(128, dtype="u4") + 1000
    body = f"""mad.lo.u32 %r7, %r1, 100, %tid; st.shared.b32 [%r4], %r7; {SYNC}
    rem.u32 %r7, %tid, 3; setp.eq.u32 %p3, %r7, 1; setp.eq.u32 %p4, %r7, 2; mad.wide.u32 %d3, %r6, 4, %a1;
    selp.b64 %d4, %d2, %d1, %p3; selp.b64 %d4, %d3, %d4, %p4; ld.b32 %r8, [%d4]; st.global.b32 [%d0], %r8; {SYNC}"""
    ring(body, out, there)
    for rank, thread in np.ndindex(2, 64):
        other = 1 - rank
        assert out[rank, thread] == (100 * rank + thread, 100 * other + thread, 1000 + 64 * rank + thread)[thread % 3]


def test_a_wait_waits_for_arrivals_only() -> None:
    """The barrier is split: one warp waits for the cluster before its block's barrier, the other one after it."""
    out = np.zeros(128, "u4")
    wait = "barrier.cluster.wait.acquire.aligned;"
    body = f"""barrier.cluster.arrive.release.aligned; setp.lt.u32 %p3, %tid, 32; @%p3 bra FIRST;
    bar.sync 0; {wait} bra END; FIRST: {wait} bar.sync 0; END: st.global.b32 [%d0], 1;"""
    with pytest.raises(KernelError, match="divergent barrier: 32 of 64 threads wait here"):
        ring(body, out)  # a block's barrier is the same one for all of its threads
    body = f"""barrier.cluster.arrive.release.aligned; setp.lt.u32 %p3, %tid, 32; @%p3 {wait} bar.sync 0;
    @!%p3 {wait} st.global.b32 [%d0], 1;"""
    ring(body, out)
    assert out.all()


def test_a_barrier_of_the_cluster_is_one_of_its_blocks() -> None:
    """A block's warps are in order across it, and it counts for every block."""
    out, turn = np.zeros(256, "u4"), "sub.u32 %r8, 63, %tid; mov.u32 %r9, tile; mad.lo.u32 %r9, %r8, 4, %r9;"
    body = f"{turn} st.shared.b32 [%r4], %tid; {{}} ld.shared.b32 %r7, [%r9]; st.global.b32 [%d0], %r7;"
    statistics = run(RING + body.format(SYNC), out, threads=64, grid=4, module=SHARED, cluster=2)
    assert (out.reshape(4, 64) == np.arange(63, -1, -1)).all()
    assert statistics.barriers == 2 * 4
    with pytest.raises(KernelError, match=r"warp \d has touched since the last barrier"):
        ring(body.format(""), out)


# ---------------------------------------------------------------------------------------------- races between blocks

FILL = f"st.shared.b32 [%r4], %tid; {SYNC}"
READ_NEXT = "ld.b32 %r7, [%d2]; st.global.b32 [%d0], %r7;"


@pytest.mark.parametrize("barrier", ["", "bar.sync 0;"])
def test_a_read_of_what_another_block_writes(barrier: str) -> None:
    body = f"st.shared.b32 [%r4], %tid; {{}} {READ_NEXT} {SYNC}"
    ring(body.format(SYNC), np.zeros(128, "u4"))
    with pytest.raises(KernelError, match=r"ld\.b32 .*reads shared memory that is written by block 1 of the cluster"):
        ring(body.format(barrier), np.zeros(128, "u4"))


@pytest.mark.parametrize("barrier", ["", "bar.sync 0;"])
def test_a_write_over_what_another_block_reads(barrier: str) -> None:
    body = f"{FILL} {READ_NEXT} {{}} st.shared.b32 [%r4], 5; {SYNC}"
    ring(body.format(SYNC), np.zeros(128, "u4"))
    with pytest.raises(KernelError, match=r"st\.shared.*writes shared memory that is also touched by block 1 of"):
        ring(body.format(barrier), np.zeros(128, "u4"))


def test_two_blocks_that_write_one_place_of_a_third() -> None:
    """Even if they write the same."""
    body = f"mapa.u64 %d3, %d1, 2; mov.u32 %r7, 7; @%p1 st.b32 [%d3], %r7; {{}} @%p2 st.b32 [%d3], %r7; {SYNC}"
    ring(body.format(SYNC), cluster=4)
    with pytest.raises(KernelError, match="also touched by block 0 of the cluster, with no cluster barrier between"):
        ring(body.format(""), cluster=4)
    with pytest.raises(KernelError, match=r"also touched by block \d of the cluster"):
        ring(f"mapa.u64 %d3, %d1, 2; st.b32 [%d3], 7; {SYNC}", cluster=4)


ARRIVE, WAIT = SYNC.split(" ", 1)


def test_what_is_written_after_the_arrival_is_not_there_after_the_wait() -> None:
    body = f"{{}} {WAIT} {READ_NEXT} {SYNC}"
    ring(body.format(f"st.shared.b32 [%r4], %tid; {ARRIVE}"), np.zeros(128, "u4"))
    with pytest.raises(KernelError, match="reads shared memory that is written by block 1"):
        ring(body.format(f"{ARRIVE} st.shared.b32 [%r4], %tid;"), np.zeros(128, "u4"))


def test_what_is_read_before_the_wait_may_not_be_there() -> None:
    body = f"st.shared.b32 [%r4], %tid; {ARRIVE} {{}} {SYNC}"
    ring(body.format(f"{WAIT} {READ_NEXT}"), np.zeros(128, "u4"))
    with pytest.raises(KernelError, match="reads shared memory that is written by block 1"):
        ring(body.format(f"{READ_NEXT} {WAIT}"), np.zeros(128, "u4"))


def test_what_is_read_after_the_arrival_may_be_overwritten_after_the_wait() -> None:
    """The block itself may go on reading its own memory between the two, and write there afterwards."""
    own = "ld.shared.b32 %r8, [%r4];"
    body = f"{FILL} {{}} {WAIT} st.shared.b32 [%r4], 5; {SYNC}"
    ring(body.format(f"{READ_NEXT} {ARRIVE} {own}"), np.zeros(128, "u4"))
    with pytest.raises(KernelError, match="also touched by block 1"):
        ring(body.format(f"{ARRIVE} {READ_NEXT} {own}"), np.zeros(128, "u4"))


def test_what_one_warp_reads_after_its_arrival_counts_though_another_reads_it_before() -> None:
    body = f"""{FILL} setp.lt.u32 %p3, %tid, 32; mov.u64 %d3, tile; cvta.shared.u64 %d3, %d3; mapa.u64 %d3, %d3, %r3;
    {{}} @!%p3 ld.b32 %r7, [%d3]; @!%p3 {ARRIVE} {WAIT} st.shared.b32 [%r4], 5; {SYNC}"""
    ring(body.format(f"@%p3 ld.b32 %r7, [%d3]; @%p3 {ARRIVE}"))
    with pytest.raises(KernelError, match="also touched by block 1"):
        ring(body.format(f"@%p3 {ARRIVE} @%p3 ld.b32 %r7, [%d3];"))


def test_the_own_block_by_its_rank_is_the_own_block() -> None:
    """Its warps need the block's barrier, and no more."""
    body = """mapa.u64 %d3, %d1, %r1; st.b32 [%d3], %tid; {}
    sub.u32 %r8, 63, %tid; mov.u64 %d4, tile; cvta.shared.u64 %d4, %d4; mapa.u64 %d4, %d4, %r1;
    mad.wide.u32 %d4, %r8, 4, %d4; ld.b32 %r7, [%d4]; st.global.b32 [%d0], %r7;"""
    out = np.zeros((2, 64), "u4")
    ring(body.format("bar.sync 0;"), out)
    assert (out == np.arange(63, -1, -1)).all()
    with pytest.raises(KernelError, match=r"warp \d has touched since the last barrier"):
        ring(body.format(""), out)


def test_global_memory_between_blocks_of_a_cluster() -> None:
    """In order across the cluster's barrier, and across no other; between clusters nothing is in order."""
    data, out = np.zeros((4, 64), "u4"), np.zeros((4, 64), "u4")
    body = """st.global.b32 [%d0], %r6; {barrier}
    xor.b32 %r8, %r5, {other}; mad.lo.u32 %r8, %r8, 64, %tid; mad.wide.u32 %d3, %r8, 4, %a0; ld.global.b32 %r7, [%d3];
    mad.wide.u32 %d4, %r6, 4, %a1; st.global.b32 [%d4], %r7;"""
    ring(body.format(barrier=SYNC, other=1), data, out, grid=4)
    assert (out == np.arange(256).reshape(4, 64)[[1, 0, 3, 2]]).all()
    with pytest.raises(KernelError, match=r"reads what is written by block 1 of the cluster"):
        ring(body.format(barrier="bar.sync 0;", other=1), data, out, grid=4)
    with pytest.raises(KernelError, match="reads what is written by cluster 1 of the same launch"):
        ring(body.format(barrier=SYNC, other=2), data, out, grid=4)
    with pytest.raises(KernelError, match=r"writes what is also touched by block \d of the cluster"):
        ring("mad.wide.u32 %d0, %tid, 4, %a0; st.global.b32 [%d0], 1;", data)


def test_atomics_of_a_clusters_blocks_in_global_memory_are_in_order() -> None:
    count = np.zeros(1, "u4")
    ring("red.global.add.u32 [%a0], 1;", count, cluster=4, grid=8)
    assert count[0] == 8 * 64


def test_a_copy_under_way_to_what_another_block_reads() -> None:
    """The copy of each thread goes to its own block; the cluster's barrier does not wait for it."""
    copy = "cp.async.ca.shared.global [%r4], [%d0], 4; cp.async.commit_group;"
    read = "ld.b32 %r7, [%d2]; mad.wide.u32 %d3, %r6, 4, %a1; st.global.b32 [%d3], %r7;"
    data, out = np.arange(128, dtype="u4").reshape(2, 64), np.zeros((2, 64), "u4")
    ring(f"{copy} cp.async.wait_group 0; {SYNC} {read} {SYNC}", data, out)
    assert (out == data[::-1]).all()
    with pytest.raises(KernelError, match="asynchronous copy to there has not been waited for"):
        ring(f"{copy} {SYNC} {read} {SYNC}", data, out)
    with pytest.raises(KernelError, match="asynchronous copy to there has not been waited for"):
        ring(f"{copy} {SYNC} st.b32 [%d2], 1; {SYNC}", data)
    with pytest.raises(KernelError, match="written by block 1 of the cluster"):
        ring(f"{copy} {ARRIVE} cp.async.wait_group 0; {WAIT} {read} {SYNC}", data, out)


# -------------------------------------------------------------------------------------- barriers, beginnings and ends


def test_a_block_that_leaves_out_a_barrier() -> None:
    who = (
        r"divergent barrier: 192 of 256 threads of the cluster have arrived, 64 have exited, of block 1 of the cluster"
    )
    with pytest.raises(KernelError, match=rf"barrier\.cluster\.wait: block \(0, 0, 0\).*{who}"):
        ring(f"@%p2 ret; {SYNC}", cluster=4)


def test_threads_that_wait_elsewhere() -> None:
    body = f"setp.lt.u32 %p3, %tid, 8; @%p3 bra LATE; {SYNC} LATE: bar.sync 0;"
    with pytest.raises(KernelError, match=r"8 of 64 threads wait here, 56 wait at PTX line \d+: barrier.cl"):
        ring(body)
    body = f"@%p1 bra OTHER; {SYNC} {SYNC} bra END; OTHER: {SYNC} @%p1 ret; END:"
    with pytest.raises(KernelError, match="64 of 128 threads of the cluster have arrived, 64 have exited, of block 0"):
        ring(body)


def test_blocks_may_wait_at_different_places() -> None:
    """One of them for itself, while the others wait for it."""
    out = np.zeros(128, "u4")
    ring(f"@%p1 bar.sync 0; {SYNC} {SYNC} st.global.b32 [%d0], 2;", out)
    assert (out == 2).all()
    ring(f"@%p1 bra OTHER; {SYNC} bra END; OTHER: {SYNC} END: st.global.b32 [%d0], 1;", out)
    assert (out == 1).all()


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (WAIT, "waits for a cluster barrier at which it has not arrived"),
        (f"{ARRIVE} {SYNC}", "arrives at a cluster barrier once more without a wait between"),
    ],
    ids=["wait", "arrive"],
)
@pytest.mark.parametrize("cluster", [1, 2])
def test_arrivals_and_waits_alternate(body: str, fault: str, cluster: int) -> None:
    with pytest.raises(KernelError, match=rf"block \(0, 0, 0\), thread \(40, 0, 0\): {fault}"):
        ring(f"setp.ne.u32 %p3, %tid, 40; @%p3 bra END; {body} END:", cluster=cluster)


def test_shared_memory_ends_with_its_block() -> None:
    """In whichever order the two are seen; an arrival is enough for who only reads elsewhere."""
    out = np.zeros(128, "u4")
    ring(f"{FILL} {READ_NEXT} {SYNC} st.b32 [%d2], 1; {SYNC}", out)
    ring(f"{FILL} @%p1 {READ_NEXT.replace(' st', ' @%p1 st')} {ARRIVE} @%p1 ret; {WAIT}", out)
    with pytest.raises(KernelError, match=r"ret: block \(0, 0, 0\).*exits while block 1 of the cluster may still"):
        ring(f"{FILL} {READ_NEXT}", out)
    with pytest.raises(KernelError, match=r"ret: block \(0, 0, 0\).*exits while block 1 of the cluster may still"):
        ring("st.b32 [%d2], 1;")
    with pytest.raises(KernelError, match=r"ld\.b32 .*shared memory of block 1 of the cluster, which has exited"):
        ring(f"{FILL} @%p2 ret; {READ_NEXT}", out)


def test_a_block_that_may_not_have_started() -> None:
    body = """mov.u32 %r1, %cluster_ctarank; setp.eq.u32 %p1, %r1, 0; {}
    mov.u64 %d1, tile; cvta.shared.u64 %d1, %d1; mapa.u64 %d1, %d1, 1; @%p1 st.b32 [%d1], 1; {}"""
    run(body.format(SYNC, SYNC), threads=1, grid=2, module=SHARED, cluster=2)
    for before, after in (("", SYNC), (ARRIVE, WAIT)):
        with pytest.raises(KernelError, match="before any cluster barrier: that block may not have started"):
            run(body.format(before, after), threads=1, grid=2, module=SHARED, cluster=2)


# ------------------------------------------------------------------------------------------------------- addresses


def test_a_rank_outside_of_the_cluster() -> None:
    for cluster in (1, 2):
        with pytest.raises(KernelError, match=f"mapa.*: block {cluster} of a cluster of {cluster}"):
            ring(f"mapa.u64 %d3, %d1, {cluster};", cluster=cluster)


def test_only_addresses_of_the_own_shared_memory_are_mapped() -> None:
    for body in (
        "mapa.u64 %d3, %a0, 0;",
        "mapa.u64 %d3, %d2, 0;",
        "sub.u32 %r7, %r4, 4; mapa.shared::cluster.u32 %r8, %r7, 0;",
    ):
        with pytest.raises(KernelError, match="is no address of the block's own shared memory"):
            ring(body, np.zeros(1, "u4"))


@pytest.mark.parametrize(
    ("access", "fault"),
    [
        ("ld.b32 %r7, [%d2+512];", "4 bytes at offset 512 of 512 bytes of shared memory"),
        ("st.v4.b32 [%d2+512], {%r1, %r1, %r1, %r1};", "16 bytes at offset 512 of 512 bytes of shared memory"),
        ("ld.b32 %r7, [%d2+2];", "is not a multiple of the access's 4 bytes"),
        ("st.v2.b32 [%d2+4], {%r1, %r1};", "is not a multiple of the access's 8 bytes"),
        ("ld.b32 %r7, [%d2+256];", "reads shared memory that nobody has written, at offset 256"),
        ("add.u64 %d2, %d2, 0x2000000; ld.b32 %r7, [%d2];", "lies in the shared memory of no block"),
        ("ld.shared::cluster.b32 %r7, [%d2];", "lies in the shared memory of no block"),
        (
            "mapa.shared::cluster.u32 %r8, %r4, %r3; ld.shared.b32 %r7, [%r8];",
            r"at offset \d{8} of 512 bytes of shared",
        ),
        ("red.add.u32 [%d2], 1;", "an atomic operation on shared memory of another block"),
    ],
)
def test_addresses_of_another_block_are_checked_as_the_own_ones(access: str, fault: str) -> None:
    ring(f"{FILL} ld.b32 %r7, [%d2]; {SYNC}")
    with pytest.raises(KernelError, match=fault):
        ring(f"{FILL} setp.ne.u32 %p3, %tid, 0; @%p3 bra END; {access} END: {SYNC}")


@pytest.mark.parametrize(("cluster", "blocks"), [(0, 8), (3, 6), (16, 16), (-1, 8), (4, 6)])
def test_sizes_of_clusters(cluster: int, blocks: int) -> None:
    with pytest.raises(ValueError, match=f"clusters of {cluster} blocks in a grid of {blocks} along x; 1, 2, 4, 8 are"):
        run("", grid=blocks, cluster=cluster)
