"""Derivatives against finite differences, in float64, and what cannot be differentiated says so."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from cube_kernels import Alive, Lattice, Rule, RuleParameters, perceive, rollout
from cube_kernels.lattice import BOUNDARIES
from cube_kernels.update_rule import UPDATES
from tests.conformance.cases import Case, draw_inputs

SWITCHES = list(itertools.product(BOUNDARIES, ["depthwise", "gather"], UPDATES))


def small_case(boundary, perception, update, activation="gelu", drive="none", **switches):
    rule = Rule(
        perception=perception,
        filters=2 if perception == "depthwise" else 1,
        hidden=4,
        activation=activation,
        update=update,
        drive=0 if drive == "none" else 2,
        **switches,
    )
    plane = ((0, 0, 0), (1, 0, 0), (-1, 1, 0), (0, -1, 0))  # a mirror is undefined across one cell
    return Case(Lattice((2, 3, 1), 2, plane, boundary=boundary), rule, drive, batch=2)


def as_function(case, backend, steps=3, checkpoint_every=2):
    inputs = draw_inputs(case, torch.float64)
    names, tensors = zip(*inputs.tensors().items(), strict=True)

    def function(*values):
        given = dict(zip(names, values, strict=True))
        parameters = RuleParameters(*(given.get(name) for name in RuleParameters._fields))
        return rollout(
            given["x"],
            parameters,
            case.lattice,
            case.rule,
            steps=steps,
            drive=given.get("drive"),
            write_mask=inputs.write_mask,
            seed=case.seed,
            checkpoint_every=checkpoint_every,
            backend=backend,
        )

    return function, tensors


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("switches", SWITCHES, ids="-".join)
def test_gradcheck(backend, switches):
    function, tensors = as_function(small_case(*switches), backend)
    assert gradcheck(function, tensors)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("activation", ["silu", "tanh"])
@pytest.mark.parametrize("drive", ["each", "shared"])
def test_gradcheck_of_the_other_activations_and_of_the_drive(backend, activation, drive):
    function, tensors = as_function(small_case("periodic", "depthwise", "gated", activation, drive), backend)
    assert gradcheck(function, tensors)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("update", ["residual", "replace", "gated", "leaky"])
def test_gradcheck_of_the_masks(backend, update):
    masks = {
        "fire_rate": 0.6,
        "fire_rescale": True,
        "clamp": (-1.5, 1.2),
        "immutable_channels": (0,),
        "alive": Alive(1, 0.1),
        "fixed_filters": ("identity",),
    }
    case = replace(small_case("absorbing", "depthwise", update, **masks), mask_batch="each")
    function, tensors = as_function(case, backend)
    assert gradcheck(function, tensors)


@pytest.mark.parametrize("switches", SWITCHES[::5], ids="-".join)
def test_reference_is_differentiable_twice(switches):
    function, tensors = as_function(small_case(*switches), "reference", steps=2)
    assert gradgradcheck(function, tensors)


def test_native_refuses_a_second_derivative():
    function, tensors = as_function(small_case("walls", "depthwise", "residual"), "native")
    (first,) = torch.autograd.grad(function(*tensors).sum(), tensors[:1], create_graph=True)
    with pytest.raises(RuntimeError, match=r"'native' is differentiable once.*backend='reference'"):
        torch.autograd.grad(first.square().sum(), tensors[:1])


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("weighted", [True, False])
def test_perceive_is_differentiable_twice(boundary, weighted, backend):
    lattice = Lattice((2, 2, 3), 2, boundary=boundary)
    x = torch.randn(2, 2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    tensors = [x]
    if weighted:
        tensors.append(torch.randn(3, 7, 2, dtype=torch.float64, requires_grad=True))

    def function(x, filters=None):
        return perceive(x, lattice, filters, backend=backend)

    assert gradcheck(function, tensors)
    assert gradgradcheck(function, tensors)


@pytest.mark.parametrize("frozen", ["x", "filters", "hidden_weight", "head_bias"])
def test_native_differentiates_only_what_asks_for_it(frozen):
    case = small_case("walls", "depthwise", "gated")
    inputs = draw_inputs(case, torch.float32)
    tensors = inputs.tensors()
    tensors[frozen].requires_grad_(False)
    rollout(inputs.x, inputs.parameters, case.lattice, case.rule, steps=2, backend="native").sum().backward()
    assert tensors[frozen].grad is None
    assert all(t.grad is not None for name, t in tensors.items() if name != frozen)


def test_backward_leaves_its_inputs_as_they_were():
    case = small_case("periodic", "gather", "replace")
    inputs = draw_inputs(case, torch.float32)
    before = {name: tensor.detach().clone() for name, tensor in inputs.tensors().items()}
    result = rollout(inputs.x, inputs.parameters, case.lattice, case.rule, steps=3, backend="native")
    cotangent = torch.ones_like(result)
    result.backward(cotangent)
    assert torch.equal(cotangent, torch.ones_like(result))
    assert all(torch.equal(tensor, before[name]) for name, tensor in inputs.tensors().items())
