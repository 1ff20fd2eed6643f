"""A backend from outside: known by its name, differentiated and traced as those that ship."""

from types import SimpleNamespace

import pytest
import torch

from cube_kernels import BackendError, CubeLayer, Lattice, Rule, register_backend
from cube_kernels.backends import native
from cube_kernels.call.dispatch import BACKENDS, KERNELS

LATTICE, RULE = Lattice((2, 2, 3), 4), Rule(hidden=6)


@pytest.fixture
def outside():
    """It counts its calls and computes as ``native`` does, for lattices without absorbing boundary."""
    calls = []

    def counted(name):
        def call(*arguments, **named):
            calls.append(name)
            return getattr(native, name)(*arguments, **named)

        return call

    def why_not(lattice, rule, dtype, device):
        return "it has no sponge" if lattice.boundary == "absorbing" else None

    names = ("forward", "backward", "perceive", "perceive_adjoint", "filter_gradient")
    register_backend(SimpleNamespace(name="outside", why_not=why_not, **{name: counted(name) for name in names}))
    yield calls
    for known in (BACKENDS, KERNELS):
        del known["outside"]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_registered_backend_runs_and_is_differentiated(outside, compiled):
    torch.manual_seed(0)
    layer, x = CubeLayer(LATTICE, RULE, 2, backend="outside"), torch.randn(2, *LATTICE.state_shape)
    run = torch.compile(layer, backend="aot_eager") if compiled else layer
    run(x).sum().backward()
    assert outside == ["forward", "backward"]
    own = [p.grad for p in layer.parameters()]
    layer.zero_grad()
    layer.backend = "native"
    layer(x).sum().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(own, layer.parameters(), strict=True))


def test_the_automatic_choice_does_not_take_it(outside):
    CubeLayer(LATTICE, RULE, 1)(torch.zeros(1, *LATTICE.state_shape))
    assert not outside


def test_what_it_cannot_run_is_refused_with_its_reason(outside):
    lattice = Lattice((2, 2, 3), 4, boundary="absorbing")
    with pytest.raises(BackendError, match=r"backend is 'outside', but it cannot run this call: it has no sponge"):
        CubeLayer(lattice, RULE, 1, backend="outside")(torch.zeros(1, *lattice.state_shape))


@pytest.mark.parametrize("name", ["native", "reference", "auto"])
def test_a_name_that_is_taken_is_refused(name):
    with pytest.raises(ValueError, match=f"the name '{name}' is taken; taken: 'auto', 'native', .*'reference'"):
        register_backend(SimpleNamespace(name=name))
