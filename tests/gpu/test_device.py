"""On a real GPU: the backends give what the reference gives in float64, on any stream and inside CUDA graphs.

Skipped where there is no GPU. The long grid is ``pytest -m "gpu and sweep" tests/gpu``.
"""

from dataclasses import replace

import pytest
import torch

from cube_kernels import Alive, BackendError, CubeLayer, Lattice, Rule
from cube_kernels.call.dispatch import BACKENDS
from cube_kernels.sharding import Sharding
from tests.conformance.cases import (
    TOLERANCE,
    Case,
    Inputs,
    assert_close,
    assert_close_in_half_width,
    call,
    cases,
    draw_case,
    make_inputs,
    run,
    sweep,
)
from tests.conformance.properties import assert_same_bits
from tests.cube_kernels.sharding import cases as shared_lattices
from tests.cube_kernels.sharding.ranks import on_ranks

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
GPU_BACKENDS = [name for name in BACKENDS if name not in ("native", "reference")]
gpu_backends = pytest.mark.parametrize("backend", GPU_BACKENDS)
compared_backends = pytest.mark.parametrize(
    "backend", [pytest.param(name, marks=pytest.mark.conformance(name, "on a GPU")) for name in GPU_BACKENDS]
)


def on_gpu(inputs: Inputs) -> Inputs:
    moved = inputs.map(torch.Tensor.cuda)
    return replace(moved, write_mask=None if inputs.write_mask is None else inputs.write_mask.cuda())


def on_cpu(results: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in results.items()}


def check(case: Case, backend: str) -> None:
    inputs = make_inputs(case, torch.float32)
    truth = run(case, inputs.map(torch.Tensor.double), "reference")
    assert_close(on_cpu(run(case, on_gpu(inputs), backend)), truth, TOLERANCE[torch.float32])


@compared_backends
@pytest.mark.parametrize("case", cases(24), ids=str)
def test_a_backend_agrees_with_the_reference(case, backend):
    check(case, backend)


@compared_backends
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", cases(8), ids=str)
def test_a_backend_agrees_in_half_width(case, backend, dtype):
    inputs = make_inputs(case, dtype)
    same, actual = run(case, inputs, "reference"), on_cpu(run(case, on_gpu(inputs), backend))
    truth = run(case, inputs.map(torch.Tensor.double), "reference")
    assert_close_in_half_width(actual, same, truth)


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (9, 0), reason="this GPU has no clusters"
)
@pytest.mark.conformance("cuda", "on a GPU")
@pytest.mark.parametrize("size", [16, 20])
def test_a_cluster_of_blocks_agrees_with_the_reference(size):
    """Of four and of eight; no block has room for such a state."""
    lattice = Lattice((size, size, size), 16, boundary="periodic")
    rule = Rule(hidden=128, filters=2, fire_rate=0.5, alive=Alive(3, 0.1, "both", 0.0))
    check(Case(lattice, rule, trajectory_every=2), "cuda")


@pytest.mark.sweep
@compared_backends
def test_a_backend_agrees_over_a_thousand_cases(backend):
    sweep(1000, check, backend)


@gpu_backends
@pytest.mark.parametrize("seed", range(4))
def test_sanitized_rollouts(backend, seed):
    """A few cases of every kind, to be run under compute-sanitizer."""
    case = draw_case(seed)
    if case is not None:
        run(case, on_gpu(make_inputs(case, torch.float32)), backend)


@gpu_backends
def test_gradients_are_the_same_bits_on_every_run_and_for_every_checkpoint_every(backend):
    torch.use_deterministic_algorithms(True)
    try:
        for case in cases(4):
            inputs = on_gpu(make_inputs(case, torch.float32))
            first = run(case, inputs, backend)
            for every in (None, 1, 3, 9):
                assert_same_bits(
                    run(case, inputs, backend, checkpoint_every=every), first, f"with checkpoint_every={every}"
                )
    finally:
        torch.use_deterministic_algorithms(False)


def layer_and_state(backend: str) -> tuple[CubeLayer, torch.Tensor]:
    lattice = Lattice((4, 5, 6), 16, boundary="periodic")
    return CubeLayer(lattice, Rule(hidden=32), steps=5, backend=backend).cuda(), torch.randn(2, 4, 5, 6, 16).cuda()


@gpu_backends
def test_a_captured_graph_replays_on_new_numbers(backend):
    layer, x = layer_and_state(backend)
    with torch.no_grad():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            layer(x)  # compiles, and fills the caches
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = layer(x)
        x.copy_(torch.randn_like(x))
        graph.replay()
        assert torch.equal(captured, layer(x))


@gpu_backends
def test_a_call_runs_on_the_current_stream(backend):
    """What is queued before it on a stream of its own has happened when it reads."""
    layer, x = layer_and_state(backend)
    with torch.no_grad():
        expected, late, stream = layer(x), torch.zeros_like(x), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(50_000_000)
            late.copy_(x)
            result = layer(late)
        stream.synchronize()
        assert torch.equal(result, expected)


@gpu_backends
def test_a_state_on_the_cpu_is_refused(backend):
    layer, x = layer_and_state(backend)
    with pytest.raises(BackendError, match="the state is on cpu"):
        layer.cpu()(x.cpu())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@gpu_backends
def test_a_call_runs_on_the_device_of_its_tensors(backend):
    layer, x = layer_and_state(backend)
    with torch.no_grad():
        assert torch.equal(layer.to("cuda:1")(x.to("cuda:1")).to("cuda:0"), layer.to("cuda:0")(x))
    with pytest.raises(ValueError, match=r"on cuda:0, but x is on cuda:1"):
        layer.to("cuda:0")(x.to("cuda:1"))


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_properties(0).total_memory < 40 * 2**30,
    reason="needs 40 GiB",
)
def test_triton_addresses_more_than_two_billion_numbers():
    lattice = Lattice((520, 512, 512), 16, boundary="periodic")
    layer = CubeLayer(lattice, Rule(hidden=16), steps=1, backend="triton").cuda().bfloat16()
    x = torch.randn(1, 1, 512, 512, 16, device="cuda", dtype=torch.bfloat16).expand(1, 520, 512, 512, 16).contiguous()
    with torch.no_grad():
        y = layer(x)
        plane = (
            CubeLayer(Lattice((1, 512, 512), 16, boundary="periodic"), layer.rule, 1, backend="triton")
            .cuda()
            .bfloat16()
        )
        plane.load_state_dict(layer.state_dict())
        assert torch.equal(y[:, -1], plane(x[:, :1])[:, 0])


def test_call_is_what_the_conformance_cases_run():
    """The cases are drawn on the CPU, where the fire mask's seeds are the same."""
    case = next(c for c in cases(200) if c.rule.fire_rate < 1)
    inputs = make_inputs(case, torch.float32)
    on_device = call(case, on_gpu(inputs), "reference").state.cpu()
    torch.testing.assert_close(on_device, call(case, inputs, "reference").state, rtol=1e-4, atol=1e-4)


def _shared(rank: int, ranks: int, backend: str) -> dict[str, list[str]]:
    torch.cuda.set_device(rank)
    found = {}
    for name, case in shared_lattices.cases().items():
        sharding = Sharding(case.lattice, {"D": torch.distributed.group.WORLD}, {"D": case.sizes[ranks]})
        given = case, sharding, backend, torch.float32, 2e-4
        found[name] = shared_lattices.wrong(*given, bits=False, device="cuda")
    return found


@gpu_backends
def test_gpus_share_a_lattice(backend):
    """Two, where there are as many, or one alone, by nccl: every case is the whole."""
    ranks = min(torch.cuda.device_count(), 2)
    for rank, found in enumerate(on_ranks(_shared, ranks, ranks, backend, transport="nccl", timeout=300)):
        assert not any(found.values()), f"rank {rank}: {found}"
