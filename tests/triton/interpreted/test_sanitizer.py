"""Known-bad kernels: each of the sanitizer's checks fires."""

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError

from tests.triton.sanitizer import FaultError


@triton.jit
def copy(source, target, count, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + index, tl.load(source + index, mask=index < count, other=0.0).to(tl.float32), mask=index < count)


@triton.jit
def copy_at(source, target, shift, stride, BLOCK: tl.constexpr):
    """Every ``stride``-th number, ``shift`` bytes further on."""
    index = tl.arange(0, BLOCK) * stride
    value = tl.load(source + tl.arange(0, BLOCK)).to(tl.float32)
    address = (target.to(tl.int64) + shift).to(tl.pointer_type(tl.float32))
    tl.store(address + index, value)


@triton.jit
def shift_left(x, count, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index + 1 < count
    tl.store(x + index, tl.load(x + index + 1, mask=inside, other=0.0).to(tl.float32), mask=inside)


@triton.jit
def each_to_the_first(x, target):
    tl.store(target, tl.load(x + tl.program_id(0)).to(tl.float32))


@triton.jit
def multiplied(target, factor, BLOCK: tl.constexpr):
    index = (tl.arange(0, BLOCK) + 65536) * factor
    tl.store(target + tl.arange(0, BLOCK), index)


@triton.jit
def asserting(target, most, BLOCK: tl.constexpr):
    index = tl.arange(0, BLOCK)
    tl.device_assert(index < most, "too large")
    tl.store(target + index, index)


def test_what_is_right_passes():
    x, y = torch.randn(10), torch.empty(10)
    copy[(3,)](x, y, 10, BLOCK=4)
    assert torch.equal(x, y)
    multiplied[(1,)](torch.empty(4, dtype=torch.int32), 32766, BLOCK=4)
    asserting[(1,)](torch.empty(4, dtype=torch.int32), 4, BLOCK=4)


def faulty(message, launch):
    with pytest.raises((FaultError, InterpreterError), match=message):
        launch()


def test_a_load_or_store_out_of_bounds_is_caught():
    x, y = torch.randn(12), torch.empty(12)
    faulty("load of 4 bytes out of bounds", lambda: copy[(3,)](x[:10], y, 12, BLOCK=4))
    faulty("store of 4 bytes out of bounds", lambda: copy[(3,)](x, y[:10], 12, BLOCK=4))


def test_a_misaligned_access_is_caught():
    faulty("store of 4 bytes, misaligned", lambda: copy_at[(1,)](torch.randn(4), torch.empty(8), 2, 1, BLOCK=4))


def test_two_lanes_to_one_address_are_caught():
    faulty("two lanes to one address", lambda: copy_at[(1,)](torch.randn(4), torch.empty(8), 0, 0, BLOCK=4))


def test_programs_that_read_what_another_writes_are_caught():
    faulty("loads what another program stores to", lambda: shift_left[(2,)](torch.randn(8), 8, BLOCK=4))


def test_programs_that_write_to_one_place_are_caught():
    faulty("stores to what another program stores to", lambda: each_to_the_first[(2,)](torch.randn(2), torch.empty(1)))


def test_an_overflow_of_32_bits_is_caught():
    faulty("overflow", lambda: multiplied[(1,)](torch.empty(4, dtype=torch.int32), 32768, BLOCK=4))


def test_a_device_assertion_is_caught():
    faulty("too large", lambda: asserting[(1,)](torch.empty(4, dtype=torch.int32), 3, BLOCK=4))


def test_memory_that_nobody_wrote_holds_nan():
    x, y = torch.zeros(8), torch.empty_like(torch.zeros(8))
    copy[(1,)](x, y, 4, BLOCK=4)
    assert y[:4].eq(0).all()
    assert y[4:].isnan().all()
