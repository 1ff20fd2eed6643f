"""Floating-point arithmetic, comparison and conversion against definitions of their own, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from tests.ptx.programs import EDGE_FLOATS, apply, edge_integers, pairs_of, run

rng = np.random.default_rng(0)


def floats(count: int, seed: int = 0) -> np.ndarray:
    """Of every magnitude, subnormal numbers, infinities and NaN among them."""
    bits = edge_integers("u4", count, seed)
    bits[: EDGE_FLOATS.size] = EDGE_FLOATS.view("u4")
    return bits.view("f4")


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    """The same numbers and signs of zero, NaN where NaN is due."""
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found[expected == 0]), np.signbit(expected[expected == 0]))


def exactly(a: float, b: float, c: float) -> float:
    """a·b + c, rounded once."""
    if not all(map(math.isfinite, (a, b, c))):
        return a * b + c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c
    with np.errstate(over="ignore"):
        near = np.float32(float(exact))
    candidates = {
        float(x) for x in (np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf)))
    }
    finite = [x for x in candidates if math.isfinite(x)]
    best = min(finite, key=lambda x: (abs(Fraction(x) - exact), int(np.float32(x).view("u4")) & 1))
    return best if math.isfinite(near) else float(near)


def test_fused_multiply_add_rounds_once() -> None:
    a, b, c = (rng.standard_normal(512).astype("f4") for _ in range(3))
    c[:256] = -(a * b)[:256]  # where two roundings lose most
    expected = np.array([exactly(*row) for row in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)], "f4")
    assert_same(apply("fma.rn.f32", "f4", a, b, c), expected)


def test_fused_multiply_add_of_doubles_rounds_once() -> None:
    a, b, c = (rng.standard_normal(512) for _ in range(3))
    c[:256] = -(a * b)[:256]
    rows = zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    expected = np.array([float(Fraction(x) * Fraction(y) + Fraction(z)) for x, y, z in rows])
    assert_same(apply("fma.rn.f64", "f8", a, b, c), expected)


def test_fused_multiply_add_rounded_down() -> None:
    """The largest f32 that is not above the exact value."""
    a, b, c = (rng.standard_normal(512).astype("f4") for _ in range(3))
    c[:256] = 12582913.0  # as exponentials use it, to round to a whole number
    found = apply("fma.rm.f32", "f4", a, b, c)
    rows = zip(a.tolist(), b.tolist(), c.tolist(), found.tolist(), strict=True)
    for x, y, z, result in rows:
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        assert Fraction(result) <= exact < Fraction(float(np.nextafter(np.float32(result), np.float32(np.inf))))


@pytest.mark.parametrize("name", ["add", "sub", "mul"])
def test_arithmetic(name: str) -> None:
    a, b = floats(512), floats(512, seed=1)
    function = {"add": np.add, "sub": np.subtract, "mul": np.multiply}[name]
    with np.errstate(all="ignore"):
        assert_same(apply(f"{name}.f32", "f4", a, b), function(a, b))


def test_subnormal_numbers_are_flushed_where_asked() -> None:
    a, b = np.array([1e-40, -1e-40, 1e-20, 1e-30], "f4"), np.array([1, 1, 1e-20, 1], "f4")
    assert_same(apply("mul.ftz.f32", "f4", a, b), np.array([0, -0.0, 0, 1e-30], "f4"))
    assert apply("mul.f32", "f4", a, b).tolist() == (a * b).tolist()


def test_saturation() -> None:
    a = np.array([-1, 0.25, 3, np.nan, np.inf, -np.inf], "f4")
    assert_same(apply("add.sat.f32", "f4", a, np.zeros(6, "f4")), np.array([0, 0.25, 1, 0, 1, 0], "f4"))


def test_extrema() -> None:
    """A NaN loses against a number, and with .NaN wins; -0 is below +0."""
    a, b = pairs_of(EDGE_FLOATS, EDGE_FLOATS)

    def least(x: float, y: float) -> float:
        if math.isnan(x) or math.isnan(y):
            return y if math.isnan(x) else x
        return min((x, y), key=lambda v: (v, math.copysign(1, v)))

    expected = np.array([least(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)], "f4")
    assert_same(apply("min.f32", "f4", a, b), expected)
    assert_same(apply("max.f32", "f4", -a, -b), -expected)
    with_nan = np.where(np.isnan(a) | np.isnan(b), np.float32(np.nan), expected)
    assert_same(apply("min.NaN.f32", "f4", a, b), with_nan)
    assert_same(apply("max.f32", "f4", a, b, b), apply("max.f32", "f4", a, b))


@pytest.mark.parametrize(
    "compare", ["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"]
)
def test_comparisons(compare: str) -> None:
    a, b = pairs_of(EDGE_FLOATS, EDGE_FLOATS)
    operators: dict[str, Callable[[float, float], bool]] = {
        "eq": lambda x, y: x == y,
        "ne": lambda x, y: x != y,
        "lt": lambda x, y: x < y,
        "le": lambda x, y: x <= y,
        "gt": lambda x, y: x > y,
        "ge": lambda x, y: x >= y,
    }

    def holds(x: float, y: float) -> bool:
        unordered = math.isnan(x) or math.isnan(y)
        if compare in ("num", "nan"):
            return unordered == (compare == "nan")
        return compare.endswith("u") if unordered else operators[compare[:2]](x, y)

    out = np.zeros(a.size, "u4")
    run(
        f"""
        mad.wide.u32 %d0, %tid, 4, %a1; ld.global.b32 %r1, [%d0];
        mad.wide.u32 %d0, %tid, 4, %a2; ld.global.b32 %r2, [%d0];
        setp.{compare}.f32 %p1, %r1, %r2; selp.b32 %r3, 1, 0, %p1;
        mad.wide.u32 %d0, %tid, 4, %a0; st.global.b32 [%d0], %r3;
        """,
        *(out, a, b),
        threads=a.size,
    )
    assert out.tolist() == [holds(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]


FUNCTIONS: dict[str, Callable[[float], float]] = {
    "ex2.approx.f32": lambda x: 2.0**x,
    "lg2.approx.f32": math.log2,
    "rcp.approx.f32": lambda x: 1 / x,
    "rcp.rn.f32": lambda x: 1 / x,
    "sqrt.rn.f32": math.sqrt,
    "sqrt.approx.f32": math.sqrt,
    "rsqrt.approx.f32": lambda x: 1 / math.sqrt(x),
    "tanh.approx.f32": math.tanh,
    "sin.approx.f32": math.sin,
    "cos.approx.f32": math.cos,
}


@pytest.mark.parametrize("instruction", FUNCTIONS)
def test_functions_are_exact(instruction: str) -> None:
    x = (rng.random(512) * 20 + 1e-3).astype("f4")
    expected = np.array([FUNCTIONS[instruction](value) for value in x.tolist()])
    # Half a unit in the last place, from the last place's weight, and the double that it was rounded from.
    ulp = np.spacing(np.abs(expected).astype("f4")).astype(float)
    assert (np.abs(apply(instruction, "f4", x) - expected) <= 0.5001 * ulp).all()


@pytest.mark.parametrize("kind", ["full", "approx", "rn"])
def test_division(kind: str) -> None:
    a, b = floats(512), floats(512, seed=1)
    with np.errstate(all="ignore"):
        assert_same(apply(f"div.{kind}.f32", "f4", a, b), a / b)


def test_signs() -> None:
    a, b = floats(256), floats(256, seed=1)
    assert (apply("neg.f32", "f4", a).view("u4") == a.view("u4") ^ 0x80000000).all()
    assert (apply("abs.f32", "f4", a).view("u4") == a.view("u4") & 0x7FFFFFFF).all()
    signs = apply("copysign.f32", "f4", a, b).view("u4")
    assert (signs == (b.view("u4") & 0x7FFFFFFF | a.view("u4") & 0x80000000)).all()


def test_packed_pairs() -> None:
    a, b, c = (rng.standard_normal(64).astype("f4") for _ in range(3))
    as_pairs = [x.view("u8") for x in (a, b, c)]
    found = apply("fma.rn.f32x2", "u8", *as_pairs).view("f4")
    assert_same(found, (a.astype("f8") * b + c).astype("f4"))
    assert_same(apply("mul.f32x2", "u8", *as_pairs[:2]).view("f4"), a * b)
    halves = [rng.standard_normal(64).astype("f2") for _ in range(2)]
    found = apply("add.f16x2", "u4", *(x.view("u4") for x in halves)).view("f2")
    assert_same(found, (halves[0].astype("f4") + halves[1]).astype("f2"))


# ------------------------------------------------------------------------------------------------------ conversion


class Small:
    """A 16-bit format, from its definition: every number that it has."""

    def __init__(self, exponent_bits: int):
        self.fraction_bits = 15 - exponent_bits
        self.bias = (1 << exponent_bits - 1) - 1
        raw = range(((1 << exponent_bits) - 1) << self.fraction_bits)  # finite and not negative
        self.numbers = [self.value(bits) for bits in raw]
        self.infinity = len(self.numbers)
        self.overflow = 2.0 ** (self.bias + 1)

    def value(self, bits: int) -> float:
        exponent, fraction = bits >> self.fraction_bits, bits & (1 << self.fraction_bits) - 1
        if exponent == 0:
            return fraction * 2.0 ** (1 - self.bias - self.fraction_bits)
        return (1 + fraction * 2.0**-self.fraction_bits) * 2.0 ** (exponent - self.bias)

    def nearest(self, x: float) -> int:
        """Bits of |x|, ties to even."""
        below = self.downwards(x)
        steps = [*self.numbers, self.overflow]
        low, high = Fraction(steps[below]), Fraction(steps[below + 1])
        middle = (low + high) / 2
        return below + (Fraction(x) > middle or (Fraction(x) == middle and below % 2 == 1))

    def downwards(self, x: float) -> int:
        return min(int(np.searchsorted(self.numbers, x, side="right")) - 1, self.infinity - 1)


SMALL = {"f16": Small(5), "bf16": Small(8)}


def small_bits(name: str, x: float, round_: str, finite: bool = False) -> int | None:
    format_ = SMALL[name]
    if math.isnan(x):
        return None
    sign = 0x8000 if math.copysign(1, x) < 0 else 0
    magnitude = abs(x)
    if math.isinf(magnitude):
        bits = format_.infinity
    elif round_ == "rn":
        bits = format_.infinity if magnitude >= format_.overflow else format_.nearest(magnitude)
    else:
        bits = format_.downwards(magnitude)
    return sign | (min(bits, format_.infinity - 1) if finite else bits)


def awkward(name: str) -> np.ndarray:
    """Random numbers in the format's range, and ties between its numbers, on both sides and just off them."""
    format_ = SMALL[name]
    steps = np.array(format_.numbers)
    which = rng.integers(0, steps.size - 1, 200)
    ties = ((steps[which] + steps[which + 1]) / 2).astype("f4")
    off = [np.nextafter(ties, np.float32(0)), np.nextafter(ties, np.float32(np.inf))]
    usual = (rng.standard_normal(100) * 10.0 ** rng.integers(-6, 5, 100)).astype("f4")
    values = np.concatenate([EDGE_FLOATS, ties, -ties, *off, usual])
    return values[:1024]


@pytest.mark.parametrize("round_", ["rn", "rz"])
@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_narrowing(name: str, round_: str) -> None:
    x = awkward(name)
    for suffix, finite in (("", False), (".satfinite", True)):
        found = apply(f"cvt.{round_}{suffix}.{name}.f32", "u2", x)
        for value, bits in zip(x.tolist(), found.tolist(), strict=True):
            expected = small_bits(name, value, round_, finite)
            if expected is None:
                assert bits & 0x7FFF > SMALL[name].infinity, value
            else:
                assert bits == expected, (value, hex(bits), hex(expected))


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_narrowing_of_two(name: str) -> None:
    """The first source is the upper half."""
    a, b = awkward(name)[10:], awkward(name)[10:][::-1]
    found = apply(f"cvt.rn.{name}x2.f32", "u4", a, b)
    for high, low, bits in zip(a.tolist(), b.tolist(), found.tolist(), strict=True):
        assert bits == small_bits(name, high, "rn") << 16 | small_bits(name, low, "rn")


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_widening(name: str) -> None:
    raw = np.arange(0, SMALL[name].infinity, 61, dtype="u2")[:1024]
    expected = np.array(SMALL[name].numbers, "f4")[raw]
    assert_same(apply(f"cvt.f32.{name}", "f4", raw), expected)
    assert_same(apply(f"cvt.f32.{name}", "f4", raw | np.uint16(0x8000)), -expected)


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_arithmetic_of_narrow_operands(name: str) -> None:
    """A narrow sum is rounded to the format; a mixed one is an f32."""
    limit = SMALL[name].infinity
    a, b = rng.integers(0, limit, 256).astype("u2"), rng.integers(0, limit, 256).astype("u2")
    numbers = np.array(SMALL[name].numbers)
    found = apply(f"add.{name}", "u2", a, b)
    expected = [small_bits(name, float(x), "rn") for x in numbers[a] + numbers[b]]
    assert found.tolist() == expected
    c = rng.standard_normal(256).astype("f4")
    with np.errstate(over="ignore"):
        assert_same(apply(f"fma.rn.f32.{name}", "f4", a, b, c), (numbers[a] * numbers[b] + c).astype("f4"))
        assert_same(apply(f"add.rn.f32.{name}", "f4", a, c), (numbers[a].astype("f4") + c))


def test_tf32_rounding() -> None:
    """An f32 with 10 bits of fraction: ties away from zero (rna), to even (rn), towards zero (rz)."""
    x = np.concatenate([EDGE_FLOATS[:7], rng.standard_normal(200).astype("f4")])
    x[7:20] = (np.arange(13) * 2 + 1) * 2.0**-11 + 1  # ties
    x[20:33] = -x[7:20]

    def round_to_tf32(value: float, round_: str) -> float:
        if value == 0 or math.isinf(value):
            return value
        exponent = math.frexp(value)[1] - 11
        scaled = Fraction(abs(value)) / Fraction(2) ** exponent
        low = math.floor(scaled)
        rest = scaled - low
        up = {
            "rna": rest >= Fraction(1, 2),
            "rn": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2 == 1),
            "rz": False,
        }[round_]
        return math.copysign(float((low + up) * Fraction(2) ** exponent), value)

    for round_ in ("rna", "rn", "rz"):
        expected = np.array([round_to_tf32(value, round_) for value in x.tolist()], "f4")
        assert_same(apply(f"cvt.{round_}.tf32.f32", "f4", x), expected)


@pytest.mark.parametrize("to", ["s32", "u32", "s64", "u8", "s16"])
def test_float_to_integer(to: str) -> None:
    """Rounded as asked, clamped to what there is, a NaN to 0."""
    bits, signed = int(to[1:]), to[0] == "s"
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    x = np.concatenate(
        [EDGE_FLOATS, np.array([0.5, 1.5, 2.5, -0.5, -1.5, 2.0**31, -(2.0**31), 2.0**63, 300, -300], "f4")]
    )
    rounding: dict[str, Callable[[float], int]] = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}
    size = f"{'i' if signed else 'u'}{max(bits // 8, 2)}"  # a narrow result fills a wider register
    for name, function in rounding.items():
        expected = []
        for value in x.tolist():
            if math.isnan(value):
                expected.append(0)
            elif math.isinf(value):
                expected.append(high if value > 0 else low)
            else:
                expected.append(min(max(function(value), low), high))
        assert apply(f"cvt.{name}.{to}.f32", size, x).tolist() == expected, name


def test_rounding_to_whole_floats() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 1e10, -0.2, np.inf], "f4")
    for name, function in (("rni", np.rint), ("rzi", np.trunc), ("rmi", np.floor), ("rpi", np.ceil)):
        assert_same(apply(f"cvt.{name}.f32.f32", "f4", x), function(x))


def test_integer_to_float() -> None:
    for type_, dtype in (("s32", "i4"), ("u32", "u4"), ("s64", "i8"), ("u64", "u8")):
        x = edge_integers(dtype, 256)
        expected = np.array(
            [np.float32(float(Fraction(v))) if abs(v) < 2**53 else np.float32(v) for v in x.tolist()], "f4"
        )
        assert_same(apply(f"cvt.rn.f32.{type_}", "f4", x), expected)


def test_between_integers() -> None:
    x = edge_integers("i4", 256)
    assert (apply("cvt.s64.s32", "i8", x) == x).all()
    assert (apply("cvt.u64.u32", "u8", x) == x.view("u4")).all()
    assert (apply("cvt.u16.u32", "u2", x) == x.view("u4") % 65536).all()
    assert (apply("cvt.s32.s8", "i4", x) == x.astype("i1")).all()
    assert (apply("cvt.sat.u8.s32", "u4", x) == x.clip(0, 255)).all()
    assert (apply("cvt.sat.s16.s32", "i4", x) == x.clip(-32768, 32767)).all()
