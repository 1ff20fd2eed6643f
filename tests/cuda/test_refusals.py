"""What the CUDA backend refuses, with the reason in one message."""

from __future__ import annotations

import pytest
import torch

from cube_kernels import BackendError, CubeLayer, Lattice, Rule, info, perceive
from cube_kernels.backends import cuda
from cube_kernels.call.dispatch import BACKENDS, choose

GPU = torch.device("cuda", 0)
SMALL = Lattice((4, 4, 4), 8)


@pytest.fixture
def built() -> None:
    module, reason = cuda.extension()
    if module is None:
        pytest.skip(reason)


@pytest.fixture
def no_device(built) -> None:
    module, _ = cuda.extension()
    if not module.device_problem(0).startswith("no device"):
        pytest.skip("there is a device")


def test_backends_are_tried_in_order():
    assert [name for name in BACKENDS if name != "triton"] == ["native", "cuda", "reference"]


def test_a_state_on_the_cpu_is_refused(built):
    layer = CubeLayer(SMALL, Rule(), steps=1, backend="cuda")
    with pytest.raises(BackendError, match="it runs on NVIDIA GPUs, and the state is on cpu"):
        layer(torch.randn(1, 4, 4, 4, 8))


def test_float64_is_refused(built):
    with pytest.raises(BackendError, match=r"it computes in float32, and the state is torch\.float64"):
        choose("cuda", SMALL, Rule(), torch.float64, GPU)


def test_a_machine_without_a_driver_says_so(no_device):
    with pytest.raises(BackendError, match="no device: this machine has no NVIDIA driver"):
        choose("cuda", SMALL, Rule(), torch.float32, GPU)


def test_info_says_how_the_module_was_built_and_what_there_is(no_device):
    report = info.report()
    assert "nvcc" in report
    assert "no device: this machine has no NVIDIA driver" in report


def test_info_says_how_to_build_a_missing_module(monkeypatch):
    reason = cuda.HOW_TO_BUILD.format(error="no module")
    monkeypatch.setattr(cuda, "extension", lambda: (None, reason))
    assert f"cuda        no: {reason}" in info.report()


@pytest.mark.usefixtures("emulation")
class TestEmulatedMachines:
    """Devices that are not here."""

    def refusal(self, lattice: Lattice = SMALL, rule: Rule | None = None) -> str:
        with pytest.raises(BackendError) as refused:
            choose("cuda", lattice, rule or Rule(), torch.float32, torch.device("cpu"))
        return str(refused.value)

    def test_an_old_driver(self, monkeypatch):
        monkeypatch.setenv("CUBE_EMULATED_DRIVER", "12040")
        assert "the NVIDIA driver is too old: it knows CUDA 12.4, and this module was built with" in self.refusal()

    def test_an_old_gpu(self, monkeypatch):
        monkeypatch.setenv("CUBE_EMULATED_CAPABILITY", "75")
        assert "the GPU is too old: it has compute capability 7.5, and the kernels need 8.0" in self.refusal()

    def test_a_device_that_is_not_there(self):
        with pytest.raises(BackendError, match="no device 1: there are 1"):
            choose("cuda", SMALL, Rule(), torch.float32, torch.device("cpu", 1))

    def test_a_captured_graph_needs_a_call_before(self, monkeypatch):
        layer, x = CubeLayer(Lattice((2, 3, 7), 4), Rule(), steps=1, backend="cuda"), torch.randn(1, 2, 3, 7, 4)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        with pytest.raises(RuntimeError, match="captured, and a lattice's tables are not on the GPU yet; make one"):
            layer(x)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        expected = layer(x)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert torch.equal(layer(x), expected)

    def test_a_lattice_that_does_not_fit(self, monkeypatch):
        lattice, rule = Lattice((16, 16, 16), 16), Rule(hidden=128)
        assert choose("cuda", lattice, rule, torch.float32, torch.device("cpu")) is cuda
        monkeypatch.setenv("CUBE_EMULATED_CAPABILITY", "80")
        monkeypatch.setenv("CUBE_EMULATED_SHARED_BYTES", "166912")
        self.check_refusal(lattice, rule, 16**3, "in one block, and a block of this GPU has 166912")
        monkeypatch.setenv("CUBE_EMULATED_CAPABILITY", "90")
        monkeypatch.setenv("CUBE_EMULATED_SHARED_BYTES", "232448")
        lattice = Lattice((32, 32, 32), 16)
        self.check_refusal(lattice, rule, 32**3 // 8, "in each of 8 blocks, and a block of this GPU has 232448")

    def test_info_says_why_a_lattice_does_not_fit(self):
        report = info.report(Lattice((32, 32, 32), 16), Rule(hidden=128), device=torch.device("cpu"))
        assert "cuda        no: a sample's state and one tile of cells take" in report
        assert "cuda        yes" in info.report(Lattice((16, 16, 16), 16), Rule(hidden=128), device=torch.device("cpu"))

    def check_refusal(self, lattice: Lattice, rule: Rule, cells: int, reason: str) -> None:
        message, state = self.refusal(lattice, rule), cells * lattice.channels * 4
        needed = int(message.split("take ")[1].split(" bytes")[0])
        assert state < needed < 1.2 * state
        assert reason in message

    @pytest.mark.parametrize("capability", ["80", "90"])
    def test_the_least_that_is_said_to_be_needed_is_enough(self, capability, monkeypatch):
        monkeypatch.setenv("CUBE_EMULATED_CAPABILITY", capability)
        layer = CubeLayer(Lattice((3, 4, 5), 8), Rule(hidden=40, drive=3), steps=3, backend="cuda")
        x, drive = torch.randn(2, 3, 4, 5, 8, requires_grad=True), torch.randn(2, 3, 4, 5, 3)
        monkeypatch.setenv("CUBE_EMULATED_SHARED_BYTES", "0")
        needed = self.refusal(layer.lattice, layer.rule).split("take ")[1].split(" bytes")[0]
        monkeypatch.setenv("CUBE_EMULATED_SHARED_BYTES", needed)
        layer(x, drive=drive).sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()

    def test_perception_of_a_large_lattice(self):
        x = torch.zeros(0, 64, 64, 32, 1)
        with pytest.raises(BackendError, match="of up to 65536 cells, and this one has 131072"):
            perceive(x, Lattice((64, 64, 32), 1), backend="cuda")
