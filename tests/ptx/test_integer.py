"""Integer instructions against the ISA's definitions, on Python's unbounded integers, one thread at a time."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pytest

from tests.ptx.programs import apply, edge_integers, pairs_of, run
from tools.ptx import KernelError

N = 256


def wrap(value: int, dtype: str) -> int:
    bits = 8 * np.dtype(dtype).itemsize
    value &= (1 << bits) - 1
    return value - (1 << bits) if dtype[0] == "i" and value >> (bits - 1) else value


def check(
    instruction: str, result: str, function: Callable[..., int], *operands: np.ndarray, immediates: tuple[str, ...] = ()
) -> None:
    expected = [wrap(function(*row), result) for row in zip(*(o.tolist() for o in operands), strict=True)]
    np.testing.assert_array_equal(apply(instruction, result, *operands, immediates=immediates), expected)


def numpy_name(ptx: str) -> str:
    return f"{'i' if ptx[0] == 's' else 'u'}{int(ptx[1:]) // 8}"


def truncating(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


@pytest.mark.parametrize("type_", ["s16", "u16"])
@pytest.mark.parametrize(("name", "function"), [("add", operator.add), ("min", min), ("max", max)])
def test_packed_halves_do_not_meet(name, function, type_):
    """A carry out of the low half, and a sign of its own for each half."""
    dtype = numpy_name(type_)
    a, b = (np.array(values, np.uint16) for values in ([0xFFFF, 1, 0x8000, 5, 0x7FFF, 0], [1, 2, 0x8000, 0xFFFE, 1, 0]))
    found = apply(f"{name}.{type_}x2", "u4", a.view(np.uint32), b.view(np.uint32)).view(dtype)
    expected = [
        wrap(function(x, y), dtype) for x, y in zip(a.view(dtype).tolist(), b.view(dtype).tolist(), strict=True)
    ]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("type_", ["s16", "u16", "s32", "u32", "s64", "u64"])
@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("add", lambda a, b: a + b),
        ("sub", lambda a, b: a - b),
        ("min", min),
        ("max", max),
        ("mul.lo", lambda a, b: a * b),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_binary_arithmetic_wraps(name: str, function: Callable[..., int], type_: str) -> None:
    dtype = numpy_name(type_)
    a, b = pairs_of(edge_integers(dtype, 16), edge_integers(dtype, 16, seed=1))
    check(f"{name}.{type_}", dtype, function, a, b)


@pytest.mark.parametrize("type_", ["s16", "u16", "s32", "u32", "s64", "u64"])
def test_the_high_half_of_a_product(type_: str) -> None:
    dtype, bits = numpy_name(type_), int(type_[1:])
    a, b = pairs_of(edge_integers(dtype, 16), edge_integers(dtype, 16, seed=1))
    check(f"mul.hi.{type_}", dtype, lambda a, b: a * b >> bits, a, b)
    c = edge_integers(dtype, a.size, seed=2)
    check(f"mad.hi.{type_}", dtype, lambda a, b, c: (a * b >> bits) + c, a, b, c)
    check(f"mad.lo.{type_}", dtype, lambda a, b, c: a * b + c, a, b, c)


@pytest.mark.parametrize("type_", ["s16", "u16", "s32", "u32"])
def test_wide_products(type_: str) -> None:
    dtype, wide = numpy_name(type_), f"{numpy_name(type_)[0]}{int(type_[1:]) // 4}"
    a, b = pairs_of(edge_integers(dtype, 16), edge_integers(dtype, 16, seed=1))
    check(f"mul.wide.{type_}", wide, lambda a, b: a * b, a, b)
    check(f"mad.wide.{type_}", wide, lambda a, b, c: a * b + c, a, b, edge_integers(wide, a.size, seed=2))


@pytest.mark.parametrize("type_", ["s32", "u32", "s64", "u64"])
def test_division_truncates(type_: str) -> None:
    dtype = numpy_name(type_)
    divisors = edge_integers(dtype, 16, seed=1)
    divisors[divisors == 0] = 3
    a, b = pairs_of(edge_integers(dtype, 16), divisors)
    check(f"div.{type_}", dtype, truncating, a, b)
    check(f"rem.{type_}", dtype, lambda a, b: a - truncating(a, b) * b, a, b)


def test_division_by_zero_is_an_error() -> None:
    with pytest.raises(KernelError, match=r"thread \(2, 0, 0\): division by zero"):
        apply("div.u32", "u4", np.full(4, 7, "u4"), np.array([1, 2, 0, 0], "u4"))


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_logic(bits: int) -> None:
    dtype = f"u{bits // 8}"
    a, b = edge_integers(dtype, N), edge_integers(dtype, N, seed=1)
    check(f"and.b{bits}", dtype, lambda a, b: a & b, a, b)
    check(f"or.b{bits}", dtype, lambda a, b: a | b, a, b)
    check(f"xor.b{bits}", dtype, lambda a, b: a ^ b, a, b)
    check(f"not.b{bits}", dtype, lambda a: ~a, a)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_signs(bits: int) -> None:
    dtype = f"i{bits // 8}"
    a = edge_integers(dtype, N)
    check(f"neg.s{bits}", dtype, lambda a: -a, a)
    check(f"abs.s{bits}", dtype, abs, a)


@pytest.mark.parametrize("type_", ["b32", "b64", "u16", "s16", "u32", "s32", "u64", "s64"])
def test_shifts_clamp_their_count(type_: str) -> None:
    dtype, bits = numpy_name(type_), int(type_[1:])
    a, count = pairs_of(edge_integers(dtype, 16), np.array([0, 1, 5, bits - 1, bits, bits + 1, 200, 2**32 - 1], "u4"))
    check(f"shr.{type_}", dtype, lambda a, n: a >> min(n, bits), a, count)
    if type_[0] == "b":
        check(f"shl.{type_}", dtype, lambda a, n: a << min(n, bits), a, count)


@pytest.mark.parametrize("over", ["wrap", "clamp"])
def test_funnel_shifts(over: str) -> None:
    a, b, count = edge_integers("u4", N), edge_integers("u4", N, seed=1), np.arange(N, dtype="u4") % 70

    def times(n: int) -> int:
        return n & 31 if over == "wrap" else min(n, 32)

    check(f"shf.l.{over}.b32", "u4", lambda a, b, n: (b << 32 | a) << times(n) >> 32, a, b, count)
    check(f"shf.r.{over}.b32", "u4", lambda a, b, n: (b << 32 | a) >> times(n), a, b, count)


@pytest.mark.parametrize("type_", ["u32", "s32", "u64", "s64"])
def test_bit_field_extraction(type_: str) -> None:
    """The loop of the ISA's semantics."""
    dtype, top = numpy_name(type_), int(type_[1:]) - 1

    def extract(a: int, position: int, length: int) -> int:
        position, length = position & 0xFF, length & 0xFF
        sign = 0 if type_[0] == "u" or length == 0 else a >> min(position + length - 1, top) & 1
        inside = (i < length and position + i <= top for i in range(top + 1))
        return sum((a >> position + i & 1 if here else sign) << i for i, here in enumerate(inside))

    rng = np.random.default_rng(0)
    position = rng.choice([0, 1, 3, 17, 31, 32, 40, 63, 64, 255, 256], 512).astype("u4")
    length = rng.choice([0, 1, 2, 8, 16, 31, 32, 33, 64, 255], 512).astype("u4")
    check(f"bfe.{type_}", dtype, extract, edge_integers(dtype, 512), position, length)


@pytest.mark.parametrize("bits", [32, 64])
def test_bit_field_insertion(bits: int) -> None:
    dtype = f"u{bits // 8}"

    def insert(a: int, b: int, position: int, length: int) -> int:
        position, length = position & 0xFF, length & 0xFF
        for i in range(length):
            if position + i < bits:
                b = b & ~(1 << position + i) | (a >> i & 1) << position + i
        return b

    rng = np.random.default_rng(0)
    position = rng.choice([0, 1, 3, 17, 31, 32, 40, 63, 64, 255], 512).astype("u4")
    length = rng.choice([0, 1, 2, 8, 31, 32, 33, 64, 255], 512).astype("u4")
    check(f"bfi.b{bits}", dtype, insert, edge_integers(dtype, 512), edge_integers(dtype, 512, seed=1), position, length)


@pytest.mark.parametrize("bits", [32, 64])
def test_bit_counts(bits: int) -> None:
    dtype = f"u{bits // 8}"
    a = edge_integers(dtype, N)
    a[7:20] = [1 << i for i in range(13)]
    check(f"popc.b{bits}", "u4", int.bit_count, a)
    check(f"clz.b{bits}", "u4", lambda a: bits - a.bit_length(), a)
    check(f"brev.b{bits}", dtype, lambda a: int(f"{a:0{bits}b}"[::-1], 2), a)


def test_permutation_of_bytes() -> None:
    def permute(a: int, b: int, selector: int) -> int:
        pool = [*a.to_bytes(4, "little"), *b.to_bytes(4, "little")]
        nibbles = [selector >> 4 * i & 15 for i in range(4)]
        chosen = [(255 if pool[n & 7] & 128 else 0) if n & 8 else pool[n & 7] for n in nibbles]
        return int.from_bytes(bytes(chosen), "little")

    check("prmt.b32", "u4", permute, *(edge_integers("u4", N, seed) for seed in range(3)))


@pytest.mark.parametrize("table", [0x00, 0x96, 0xE8, 0xCA, 0xFF, 0x2A])
def test_logic_of_three(table: int) -> None:
    def lookup(a: int, b: int, c: int) -> int:
        return sum((table >> (4 * (a >> i & 1) + 2 * (b >> i & 1) + (c >> i & 1)) & 1) << i for i in range(32))

    operands = [edge_integers("u4", N, seed) for seed in range(3)]
    check("lop3.b32", "u4", lookup, *operands, immediates=(str(table),))


def test_carry_chains() -> None:
    """A 128-bit sum and difference, and the whole product of two 64-bit numbers out of 32-bit halves."""
    a, b = (edge_integers("u8", 2 * N, seed) for seed in (0, 1))
    a[:4], b[:4] = [2**64 - 1, 2**64 - 1, 0, 5], [1, 0, 1, 0]  # carries and borrows through both halves
    total, difference, product = (np.zeros(2 * N, "u8") for _ in range(3))
    run(
        """
        shl.b32 %r0, %tid, 4; cvt.u64.u32 %d0, %r0;
        add.s64 %d1, %a0, %d0; add.s64 %d2, %a1, %d0;
        ld.global.v2.b64 {%d3, %d4}, [%d1]; ld.global.v2.b64 {%d5, %d6}, [%d2];
        add.cc.u64 %d7, %d3, %d5; addc.u64 %d8, %d4, %d6;
        add.s64 %d1, %a2, %d0; st.global.v2.b64 [%d1], {%d7, %d8};
        sub.cc.u64 %d7, %d3, %d5; subc.u64 %d8, %d4, %d6;
        add.s64 %d1, %a3, %d0; st.global.v2.b64 [%d1], {%d7, %d8};
        mov.b64 {%r1, %r2}, %d3; mov.b64 {%r3, %r4}, %d5;
        mul.lo.u32 %r5, %r1, %r3; mul.hi.u32 %r6, %r1, %r3;
        mad.lo.cc.u32 %r6, %r1, %r4, %r6; madc.hi.u32 %r7, %r1, %r4, 0;
        mad.lo.cc.u32 %r6, %r2, %r3, %r6; madc.hi.cc.u32 %r7, %r2, %r3, %r7; addc.u32 %r8, 0, 0;
        mad.lo.cc.u32 %r7, %r2, %r4, %r7; madc.hi.u32 %r8, %r2, %r4, %r8;
        mov.b64 %d7, {%r5, %r6}; mov.b64 %d8, {%r7, %r8};
        add.s64 %d1, %a4, %d0; st.global.v2.b64 [%d1], {%d7, %d8};
        """,
        *(a, b, total, difference, product),
        threads=N,
    )

    def whole(halves: np.ndarray) -> list[int]:
        return [low + (high << 64) for low, high in halves.reshape(-1, 2).tolist()]

    mask = 2**128 - 1
    pairs = list(zip(whole(a), whole(b), strict=True))
    assert whole(total) == [(x + y) & mask for x, y in pairs]
    assert whole(difference) == [(x - y) & mask for x, y in pairs]
    assert whole(product) == [(x & 2**64 - 1) * (y & 2**64 - 1) for x, y in pairs]


SIGNED = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}


@pytest.mark.parametrize(
    ("compare", "type_"),
    [(c, t) for c in SIGNED for t in ("s32", "u32", "s64", "u64", "s16", "u16")]
    + [(c, "u32") for c in ("lo", "ls", "hi", "hs")],
)
def test_comparisons(compare: str, type_: str) -> None:
    dtype = numpy_name(type_)
    operator = SIGNED.get(compare) or {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}[compare]
    a, b = pairs_of(edge_integers(dtype, 16), edge_integers(dtype, 16))
    out = np.zeros(a.size, "u4")
    letter, size = {2: "h", 4: "r", 8: "d"}[a.itemsize], a.itemsize
    run(
        f"""
        mad.wide.u32 %d0, %tid, {size}, %a1; ld.global.b{8 * size} %{letter}1, [%d0];
        mad.wide.u32 %d0, %tid, {size}, %a2; ld.global.b{8 * size} %{letter}2, [%d0];
        setp.{compare}.{type_} %p1, %{letter}1, %{letter}2;
        selp.b32 %r3, 1, 0, %p1;
        mad.wide.u32 %d0, %tid, 4, %a0; st.global.b32 [%d0], %r3;
        """,
        *(out, a, b),
        threads=a.size,
    )
    expected = [eval(f"{x} {operator} {y}") for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    np.testing.assert_array_equal(out, expected)


def test_predicates() -> None:
    """Both destinations of a comparison, its combination with a third predicate, and logic of predicates."""
    out = np.zeros((8, 32), "u4")
    run(
        """
        setp.lt.u32 %p1|%p2, %tid, 20;
        and.b32 %r1, %tid, 1; setp.ne.b32 %p3, %r1, 0;
        setp.gt.and.u32 %p4|%p5, %tid, 5, !%p3;
        setp.gt.or.u32 %p6, %tid, 5, %p3;
        and.pred %p7, %p1, %p3; not.pred %p8, %p3; xor.pred %p9, %p1, %p3; mov.pred %p10, %p9; or.pred %p10, %p10, %p7;
        mad.wide.u32 %d0, %tid, 4, %a0;
        selp.b32 %r2, 1, 0, %p1; st.global.b32 [%d0], %r2;
        selp.b32 %r2, 1, 0, %p2; st.global.b32 [%d0+128], %r2;
        selp.b32 %r2, 1, 0, %p4; st.global.b32 [%d0+256], %r2;
        selp.b32 %r2, 1, 0, %p5; st.global.b32 [%d0+384], %r2;
        selp.b32 %r2, 1, 0, %p6; st.global.b32 [%d0+512], %r2;
        selp.b32 %r2, 1, 0, %p7; st.global.b32 [%d0+640], %r2;
        selp.b32 %r2, 1, 0, %p8; st.global.b32 [%d0+768], %r2;
        selp.b32 %r2, 1, 0, %p10; st.global.b32 [%d0+896], %r2;
        """,
        out,
    )
    for i in range(32):
        below, odd = i < 20, bool(i & 1)
        expected = [below, not below, i > 5 and not odd, i <= 5 and not odd, i > 5 or odd, below and odd, not odd]
        expected.append((below != odd) or (below and odd))
        assert out[:, i].tolist() == expected, i
