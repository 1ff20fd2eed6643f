"""Triton kernels, compiled for each target as they would be on a GPU and run on the CPU, against float64."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

triton = pytest.importorskip("triton")
if triton.knobs.runtime.interpret:
    pytest.skip("Triton runs in its own interpreter (TRITON_INTERPRET)", allow_module_level=True)

import triton.language as tl  # noqa: E402

from cube_kernels.philox import philox  # noqa: E402
from tools.ptx import KernelError, UnsupportedError  # noqa: E402
from tools.ptx.triton_driver import launches, simulated_gpu  # noqa: E402

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
CAPABILITIES = [80, 90, 100]


@pytest.fixture(params=CAPABILITIES, ids="sm_{}".format)
def capability(request: pytest.FixtureRequest) -> Iterator[int]:
    with simulated_gpu(request.param):
        yield request.param
    launches.clear()


@triton.jit
def scale(x, out, n, factor, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + i, mask=i < n, other=0.0).to(tl.float32)
    tl.store(out + i, tl.exp(value * factor), mask=i < n)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("start", [0, 1], ids=["aligned", "unaligned"])
def test_elementwise(capability: int, dtype: torch.dtype, start: int) -> None:
    """An address that is no multiple of 16 is a specialization of its own."""
    x = torch.randn(1001).to(dtype)[start:]
    out = torch.full((x.numel() + 1,), torch.nan)
    scale[(4,)](x, out, x.numel(), 0.5, BLOCK=256)
    torch.testing.assert_close(out[:-1].double(), (x.double() * 0.5).exp(), rtol=1e-6, atol=0)
    assert out[-1].isnan()
    counted = launches[-1].statistics
    assert counted.global_load_unique_bytes == x.numel() * x.element_size()
    assert counted.global_store_bytes == 4 * x.numel()
    assert launches[-1].sizes == {"BLOCK": 256}


@triton.jit
def gather(x, index, out, n, stride, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    j = tl.load(index + i, mask=i < n, other=-1)
    value = tl.load(x + j.to(tl.int64) * stride, mask=(i < n) & (j >= 0), other=-1.0)
    tl.store(out + i, value.to(tl.float32), mask=i < n)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_masked_gather(capability: int, dtype: torch.dtype) -> None:
    x, index, out = torch.randn(300).to(dtype), torch.randint(-20, 100, (200,), dtype=torch.int32), torch.zeros(200)
    gather[(4,)](x, index, out, 200, 3, BLOCK=64)
    where = (index.long() * 3).clamp_min(0)
    assert torch.equal(out, torch.where(index >= 0, x[where].float(), -1.0))


@triton.jit
def softmax(x, out, COLUMNS: tl.constexpr, ROWS: tl.constexpr):
    at = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    value = tl.load(x + at).to(tl.float32)
    share = tl.exp(value - tl.max(value, 1)[:, None])
    tl.store(out + at, share / tl.sum(share, 0)[None, :])


@pytest.mark.parametrize("warps", [1, 4, 8])
def test_reductions_along_both_axes(capability: int, warps: int) -> None:
    x, out = torch.randn(64, 32), torch.zeros(64, 32)
    softmax[(1,)](x, out, COLUMNS=32, ROWS=64, num_warps=warps)
    share = (x.double() - x.double().amax(1, keepdim=True)).exp()
    torch.testing.assert_close(out.double(), share / share.sum(0), rtol=2e-6, atol=0)
    if warps > 1:
        assert launches[-1].statistics.barriers > 0


@triton.jit
def product(a, b, c, m, n, k, TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr, P: tl.constexpr):
    i = tl.program_id(0) * TILE_M + tl.arange(0, TILE_M)
    j = tl.program_id(1) * TILE_N + tl.arange(0, TILE_N)
    total = tl.zeros((TILE_M, TILE_N), tl.float32)
    for start in range(0, k, TILE_K):
        s = start + tl.arange(0, TILE_K)
        left = tl.load(a + i[:, None] * k + s[None, :], mask=(i < m)[:, None] & (s < k)[None, :], other=0.0)
        right = tl.load(b + s[:, None] * n + j[None, :], mask=(s < k)[:, None] & (j < n)[None, :], other=0.0)
        total = tl.dot(left, right, total, input_precision=P)
    tl.store(c + i[:, None] * n + j[None, :], total, mask=(i < m)[:, None] & (j < n)[None, :])


KINDS = [
    (torch.float32, "ieee", 2e-6),
    (torch.float32, "tf32", 2e-3),
    (torch.bfloat16, "ieee", 1e-6),
    (torch.float16, "ieee", 1e-6),
]
TILES = [(16, 16, 16, 1, 1), (32, 32, 64, 2, 1), (64, 32, 16, 4, 2), (128, 64, 32, 4, 3), (64, 128, 64, 8, 3)]


@pytest.mark.parametrize(("dtype", "precision", "tolerance"), KINDS, ids=str)
@pytest.mark.parametrize("tile", TILES, ids=str)
@pytest.mark.parametrize("shape", [(80, 48, 144), (37, 51, 73)], ids=str)
def test_products(capability: int, dtype: torch.dtype, precision: str, tolerance: float, tile, shape) -> None:
    """Tiles of 64 rows and more by four warps and more are the warpgroups' from sm_90 on, unless in IEEE float32."""
    (m, n, k), (tile_m, tile_n, tile_k, warps, stages) = shape, tile
    a, b, c = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype), torch.full((m, n), torch.nan)

    def call() -> None:
        grid = (triton.cdiv(m, tile_m), triton.cdiv(n, tile_n))
        options = {"num_warps": warps, "num_stages": stages}
        product[grid](a, b, c, m, n, k, TILE_M=tile_m, TILE_N=tile_n, TILE_K=tile_k, P=precision, **options)

    tensor_cores = dtype != torch.float32 or precision == "tf32"
    if capability >= 90 and tensor_cores and tile_m >= 64:
        with pytest.raises(UnsupportedError, match="wgmma" if capability == 90 else "tcgen05"):
            call()
        return
    call()
    truth = a.double() @ b.double()
    error = ((c - truth).abs().max() / truth.abs().max()).item()
    assert error < tolerance
    if precision == "tf32":
        assert error > 1e-5  # tensor cores ran: float32 would be closer


@triton.autotune(
    configs=[triton.Config({"BLOCK": 64}, num_warps=2), triton.Config({"BLOCK": 128}, num_warps=4)], key=["n"]
)
@triton.jit
def tuned(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i, mask=i < n) * 2, mask=i < n)


def test_autotuning_runs_every_configuration(capability: int) -> None:
    x, out = torch.randn(200), torch.zeros(200)
    tuned.cache.clear()
    tuned[lambda meta: (triton.cdiv(200, meta["BLOCK"]),)](x, out, 200)
    assert torch.equal(out, 2 * x)
    assert {launch.warps for launch in launches} == {2, 4}


@triton.jit
def random_words(out, seed, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    zero = i * 0
    word, _, _, _ = tl.philox(seed, i, zero, zero, zero)
    tl.store(out + i, word.to(tl.int32, bitcast=True), mask=i < n)
    high = tl.umulhi(word.to(tl.uint32), 0x9E3779B9)
    tl.store(out + n + i, high.to(tl.int32, bitcast=True), mask=i < n)


def test_integer_arithmetic_of_philox(capability: int) -> None:
    seed, n = 123456789012, 100
    out = torch.zeros(2 * n, dtype=torch.int32)
    random_words[(1,)](out, seed, n, BLOCK=128)
    i = torch.arange(n)
    zero = torch.zeros_like(i)
    words = philox((i, zero, zero, zero), (seed & 0xFFFFFFFF, seed >> 32))[0]
    found = out.numpy().view(np.uint32).astype(object)
    assert found[:n].tolist() == words.tolist()
    assert found[n:].tolist() == [word * 0x9E3779B9 >> 32 for word in words.tolist()]


def test_a_store_without_a_mask_is_caught(capability: int) -> None:
    """The end is passed as a block further than the tensor's."""
    with pytest.raises(KernelError, match=r"kernel scale, PTX line \d+ \(test_triton_driver.py:\d+\).*past the end"):
        scale[(4,)](torch.randn(1000), torch.zeros(1000), 1024, 1.0, BLOCK=256)


@triton.jit
def shift(x, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + i, tl.load(x + i + 1, mask=i < n - 1), mask=i < n - 1)


def test_a_race_between_programs_is_caught(capability: int) -> None:
    with pytest.raises(KernelError, match="of the same launch"):
        shift[(4,)](torch.randn(256), 256, BLOCK=64)


def test_an_unknown_capability() -> None:
    with pytest.raises(ValueError, match="capability 75; 80, 90, 100 are possible"), simulated_gpu(75):
        pass


def test_afterwards_the_driver_is_what_it_was() -> None:
    before = triton.runtime.driver._active
    with simulated_gpu(80):
        assert triton.runtime.driver._active is not before
    assert triton.runtime.driver._active is before
    with pytest.raises(KeyError), simulated_gpu(80):
        raise KeyError
    assert triton.runtime.driver._active is before


def test_importing_activates_nothing() -> None:
    code = "import tools.ptx.triton_driver, triton; assert triton.runtime.driver._active is None"
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
