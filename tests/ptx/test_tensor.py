"""``mma.sync``: fragments as the ISA describes them, element by element, against a product in double."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ptx.programs import run

rng = np.random.default_rng(0)


def place_a(i: int, lane: int, k: int, type_: str) -> tuple[int, int]:
    """Row and column of a lane's i-th element of A."""
    group, member = lane >> 2, lane % 4
    if type_ == "tf32":
        return group + 8 * (i % 2), member + 4 * (i // 2)
    if k == 8:
        return group if i < 2 else group + 8, member * 2 + (i & 1)
    return group if i < 2 or 4 <= i < 6 else group + 8, member * 2 + (i & 1) + (8 if i >= 4 else 0)


def place_b(i: int, lane: int, type_: str) -> tuple[int, int]:
    group, member = lane >> 2, lane % 4
    if type_ == "tf32":
        return member + 4 * i, group
    return member * 2 + (i & 1) + (8 if i >= 2 else 0), group


def place_c(i: int, lane: int) -> tuple[int, int]:
    return (lane >> 2) + (0 if i < 2 else 8), (lane % 4) * 2 + (i & 1)


def to_bits(values: np.ndarray, type_: str) -> np.ndarray:
    """Numbers that the format has, as its bits."""
    if type_ == "f16":
        return values.astype("f2").view("u2")
    if type_ == "bf16":
        return (values.astype("f4").view("u4") >> 16).astype("u2")
    return values.astype("f4").view("u4")


@pytest.mark.parametrize(("type_", "k"), [("bf16", 16), ("f16", 16), ("bf16", 8), ("f16", 8), ("tf32", 8), ("tf32", 4)])
def test_products(type_: str, k: int) -> None:
    a, b = (rng.integers(-8, 9, shape) / 4 for shape in ((2, 16, k), (2, k, 8)))  # exact in every format
    c = rng.standard_normal((2, 16, 8)).astype("f4")
    a_bits, b_bits = to_bits(a, type_), to_bits(b, type_)
    of_a, of_b = 16 * k // 32, 8 * k // 32
    a_held, b_held = np.zeros((2, 32, of_a), a_bits.dtype), np.zeros((2, 32, of_b), b_bits.dtype)
    c_held, out = np.zeros((2, 32, 4), "f4"), np.zeros((2, 32, 4), "f4")
    for warp in range(2):
        for lane in range(32):
            a_held[warp, lane] = [a_bits[warp][place_a(i, lane, k, type_)] for i in range(of_a)]
            b_held[warp, lane] = [b_bits[warp][place_b(i, lane, type_)] for i in range(of_b)]
            c_held[warp, lane] = [c[warp][place_c(i, lane)] for i in range(4)]
    words_a, words_b = (held[0, 0].nbytes // 4 for held in (a_held, b_held))
    load = " ".join(
        f"mad.wide.u32 %d0, %tid, {4 * words}, %a{array}; "
        + " ".join(f"ld.global.b32 %r{10 * array + i}, [%d0+{4 * i}];" for i in range(words))
        for array, words in ((1, words_a), (2, words_b), (3, 4))
    )
    names = {
        array: ", ".join(f"%r{10 * array + i}" for i in range(words)) for array, words in ((1, words_a), (2, words_b))
    }
    statistics = run(
        f"""
        {load}
        mma.sync.aligned.m16n8k{k}.row.col.f32.{type_}.{type_}.f32
            {{%r1, %r2, %r3, %r4}}, {{{names[1]}}}, {{{names[2]}}}, {{%r30, %r31, %r32, %r33}};
        mad.wide.u32 %d0, %tid, 16, %a0; st.global.v4.b32 [%d0], {{%r1, %r2, %r3, %r4}};
        """,
        *(out, a_held, b_held, c_held),
        threads=64,
    )
    expected = (a @ b + c).astype("f4")
    for warp in range(2):
        for lane in range(32):
            assert out[warp, lane].tolist() == [expected[warp][place_c(i, lane)] for i in range(4)]
    assert statistics.flops == 2 * 2 * 16 * 8 * k


def test_tf32_operands_lose_their_low_bits() -> None:
    """1 + 2⁻¹¹ has one bit more than a tf32: as an operand of either side it is 1."""
    out = np.zeros((32, 4), "f4")
    just_above, one = np.float32(1 + 2**-11).view("u4"), np.float32(1).view("u4")
    run(
        f"""
        mov.b32 %r1, {just_above}; mov.b32 %r2, {one}; mov.b32 %r3, 0;
        mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32
            {{%r4, %r5, %r6, %r7}}, {{%r1, %r1, %r1, %r1}}, {{%r2, %r1}}, {{%r3, %r3, %r3, %r3}};
        mad.wide.u32 %d0, %tid, 16, %a0; st.global.v4.b32 [%d0], {{%r4, %r5, %r6, %r7}};
        """,
        out,
    )
    assert (out == 8).all()
