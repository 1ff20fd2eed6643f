"""When the backend runs a call, and what it says when it does not."""

import importlib.util

import pytest
import torch

from cube_kernels import BackendError, CubeLayer, Lattice, Rule
from cube_kernels.backends import native, reference
from cube_kernels.backends import triton as backend
from cube_kernels.call import dispatch
from cube_kernels.info import report

LATTICE, RULE, CPU = Lattice((3, 4, 5), 4), Rule(hidden=8), torch.device("cpu")

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def reason(lattice=LATTICE, dtype=torch.float32, device=CPU):
    return backend.why_not(lattice, RULE, dtype, device)


class Driver:
    """What the backend asks of Triton's active driver."""

    def __init__(self, arch, kind="cuda", device="cuda"):
        self.arch, self.backend, self.device = arch, kind, device

    def get_current_target(self):
        return self

    def get_active_torch_device(self):
        return torch.device(self.device)


@pytest.fixture
def driver(monkeypatch):
    import triton

    def activate(*arguments):
        monkeypatch.setattr(triton.runtime.driver, "_active", Driver(*arguments))

    return activate


@needs_triton
@needs_no_gpu
def test_without_a_driver_it_says_so():
    assert reason() == "Triton finds no GPU with a driver"
    with pytest.raises(BackendError, match="'triton', but it cannot run this call: Triton finds no GPU with a driver"):
        CubeLayer(LATTICE, RULE, 1, backend="triton")(torch.zeros(1, 3, 4, 5, 4))
    assert "Triton finds no GPU with a driver" in report()


def test_without_triton_it_says_so(monkeypatch):
    monkeypatch.setattr(backend, "_installed", lambda: False)
    assert reason() == "Triton is not installed; run `pip install triton`"


@needs_triton
def test_what_it_does_not_compute_is_refused(driver):
    driver(90)
    gpu = torch.device("cuda", 0)
    assert reason(device=gpu) is None
    assert "the state is torch.float64; valid: torch.float32, torch.bfloat16" in reason(dtype=torch.float64, device=gpu)
    assert "up to 256, and the lattice has 300" in reason(Lattice((1, 1, 1), 300), device=gpu)
    assert "32 bits, and the lattice has 8589934592" in reason(Lattice((2**11, 2**11, 2**11), 1), device=gpu)


@needs_triton
def test_an_old_gpu_is_refused(driver):
    driver(75)
    assert reason(device=torch.device("cuda", 0)).endswith("sm_80 (Ampere) and later, and this one is sm_75")


@needs_triton
def test_a_gpu_of_amd_is_taken(driver):
    driver("gfx942", "hip")
    assert reason(device=torch.device("cuda", 0)) is None


@needs_triton
def test_a_tensor_on_another_device_is_refused(driver):
    driver(90)
    assert reason() == "it runs on cuda, and the state is on cpu"
    driver(90, "cuda", "cpu")
    assert reason() is None, "a driver that simulates a GPU on the CPU"
    assert reason(device=torch.device("cuda", 0)) == "it runs on cpu, and the state is on cuda:0"


@needs_triton
def test_the_automatic_choice_takes_it_for_gpus_alone(driver):
    def chosen(device):
        return dispatch.choose("auto", LATTICE, RULE, torch.float32, torch.device(device))

    driver(90)
    assert chosen("cuda") is backend
    assert chosen("cpu") in (native, reference)
    driver(90, "cuda", "cpu")
    assert chosen("cpu") in (native, reference)
    driver(75)
    assert chosen("cuda") is reference


@needs_triton
def test_nothing_is_tuned_while_a_graph_is_captured(monkeypatch):
    from cube_kernels.backends.triton import step

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="captured, and a kernel has not been tuned for this rule and lattice yet"):
        step.launch_step.tuned.do_bench(lambda: pytest.fail("it was launched"), quantiles=(0.5,))
