"""Shared by all tests."""

import math

import pytest
import torch

from cube_kernels.backends import native

# numpy's name of what each boundary reads beyond a face.
PADDING = {
    "walls": "constant",
    "absorbing": "constant",
    "periodic": "wrap",
    "replicate": "edge",
    "reflecting": "reflect",
}

# Warm up each transcendental once: oneMKL resolves them lazily, and a first call from several threads at once
# has been seen to run a low-accuracy kernel.
for function in (torch.tanh, torch.exp, torch.sigmoid, torch.erf):
    function(torch.ones(1))


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory holds NaN instead of what happens to lie there, so that a number nobody wrote shows."""

    def poison(make):
        def made(*args, **kwargs):
            tensor = make(*args, **kwargs)
            return tensor.fill_(math.nan) if tensor.dtype.is_floating_point else tensor

        return made

    monkeypatch.setattr(torch, "empty_like", poison(torch.empty_like))
    monkeypatch.setattr(torch.Tensor, "new_empty", poison(torch.Tensor.new_empty))


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch):
    """Sets the number of threads for one test, however small its work."""
    monkeypatch.setattr(native, "OPERATIONS_A_THREAD", 1)
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def instruction_set(monkeypatch: pytest.MonkeyPatch):
    """Has the native backend read CUBE_KERNELS_ISA again, set to its argument."""

    def choose(isa: str) -> None:
        monkeypatch.setenv(native.ISA_VARIABLE, isa)
        native.isa.cache_clear()

    yield choose
    native.isa.cache_clear()


def native_isas() -> list[str]:
    module, _ = native.extension()
    return module.supported_isas() if module is not None else []
