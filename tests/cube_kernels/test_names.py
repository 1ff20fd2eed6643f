"""A name that one layer knows and another does not is refused by that name, or followed: it never means something
else."""

import ast
import importlib.util
import re
from dataclasses import fields, replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

import cube_kernels
from cube_kernels import Alive, BackendError, CubeLayer, Lattice, Rule, lattice, perceive, update_rule
from cube_kernels.automaton import StepWeights, bind
from cube_kernels.backends import compiled, cuda, native, reference, triton
from cube_kernels.backends.contract import Call, Schedule
from cube_kernels.backends.triton import plan as triton_plan
from cube_kernels.call import dispatch

CPU = torch.device("cpu")
SMALL = Lattice((3, 4, 5), 2)
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

# Of options in update_rule.py; all but the perception may be added by a name of their own.
NAMES = {
    "perception": update_rule.PERCEPTIONS,
    "activation": update_rule.ACTIVATIONS,
    "squash": update_rule.SQUASHES,
    "update": tuple(update_rule.UPDATES),
}
TABLES = {"activation": "ACTIVATIONS", "squash": "SQUASHES", "update": "UPDATES"}


def modules():
    built = [(backend.name, backend.extension()[0]) for backend in (native, cuda)]
    return [pytest.param(module, id=name) for name, module in built if module is not None]


@pytest.mark.parametrize("module", modules())
def test_compiled_modules_know_the_names_of_every_option(module):
    assert {option: tuple(known) for option, known in module.names.items()} == NAMES
    assert module.storages == list(native.STORAGE.values())


@pytest.mark.parametrize("module", modules())
def test_stubs_declare_what_compiled_modules_have(module):
    """Each class, function and value, and how many arguments a call takes."""
    stub = ast.parse(Path(cube_kernels.__file__).with_name(module.__name__.split(".")[-1] + ".pyi").read_text())
    declared = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    values = {node.target.id for node in stub.body if isinstance(node, ast.AnnAssign)}
    assert set(declared) | values == {name for name in vars(module) if not name.startswith("__")}
    for name, node in declared.items():
        found = getattr(module, name)
        if isinstance(node, ast.FunctionDef):
            assert arguments(found) == names_of(node), name
            continue
        methods = {method.name: method for method in node.body if isinstance(method, ast.FunctionDef)}
        fields = {field.target.id for field in node.body if isinstance(field, ast.AnnAssign)}
        assert set(methods) - {"__init__"} | fields == {m for m in vars(found) if not m.startswith("_")}, name
        for method, there in methods.items():
            assert arguments(getattr(found, method)) == names_of(there), f"{name}.{method}"


def arguments(function):
    """How many, by the signature that pybind11 writes."""
    inside = function.__doc__.split("\n")[0].partition("(")[2].rpartition(") ->")[0]
    for nested in (r"\[[^\[\]]*\]", r"\([^()]*\)", "<[^<>]*>"):
        while re.search(nested, inside):
            inside = re.sub(nested, "", inside)
    return len([part for part in inside.split(",") if part.strip() not in ("", "*")])


def names_of(node):
    return len(node.args.args) + len(node.args.kwonlyargs)


def test_triton_knows_the_names_of_every_option():
    assert {"boundary": tuple(lattice.BOUNDARIES), **NAMES} == triton_plan.names


def test_the_reference_knows_the_names_of_every_option():
    assert (*reference.ACTIVATIONS,) == NAMES["activation"]
    assert (*reference.SQUASHES,) == NAMES["squash"]
    for update in NAMES["update"]:
        CubeLayer(SMALL, Rule(hidden=3, update=update), 1, backend="reference")(torch.ones(1, *SMALL.state_shape))


@pytest.fixture
def added(monkeypatch):
    """A rule with a name that no backend knows."""

    def make(option):
        table = getattr(update_rule, TABLES[option])
        longer = {**table, "novel": "tanh"} if isinstance(table, dict) else (*table, "novel")
        monkeypatch.setattr(update_rule, TABLES[option], longer)
        return Rule(hidden=3, **{option: "novel"})

    return make


@pytest.mark.parametrize("option", TABLES)
def test_a_name_unknown_to_a_backend_is_refused(option, added):
    novel = added(option)
    x = torch.ones(1, *SMALL.state_shape)
    message = f"it knows no {option} 'novel'; valid: " + ", ".join(map(repr, NAMES[option]))
    assert native.why_not(SMALL, novel, torch.float32, CPU) == message
    with pytest.raises(BackendError, match=message):
        CubeLayer(SMALL, novel, 1, backend="native")(x)
    assert dispatch.choose("auto", SMALL, novel, torch.float32, CPU) is reference
    with pytest.raises((KeyError, NotImplementedError), match="'novel'"):
        CubeLayer(SMALL, novel, 1)(x)


@needs_triton
@pytest.mark.parametrize("option", TABLES)
def test_triton_refuses_it_too(option, added):
    assert f"it knows no {option} 'novel'" in triton.why_not(SMALL, added(option), torch.float32, CPU)


@pytest.mark.parametrize("module", modules())
def test_compiled_modules_refuse_it_themselves(module, added):
    with pytest.raises(ValueError, match="Update is 'novel'; this build knows: residual, replace, gated, leaky"):
        compiled.rule_plan(module, bind(SMALL, added("update")))


def compiled_modules_are_told(rule):
    module = Mock()
    compiled.rule_plan(module, bind(SMALL, rule))
    return module.mock_calls


def triton_is_told(rule):
    from cube_kernels.backends.triton.rollout import Steps

    schedule = Schedule(steps=1, checkpoint_every=1, seed=0, trajectory_every=0, tolerance=-1)
    no_weights = StepWeights(*[None] * len(StepWeights._fields))
    steps = Steps(Call(bind(SMALL, rule), schedule, torch.zeros(1, *SMALL.state_shape), no_weights, None, None), None)
    return steps.plan, steps.numbers


# A rule, and another value of each field.
DRAWN = Rule(fire_rate=0.5, alive=Alive(0))
OTHER_RULES = {
    "perception": "gather",
    "filters": 2,
    "fixed_filters": ("laplacian",),
    "own_state": False,
    "drive": 3,
    "hidden": 32,
    "activation": "relu",
    "update": "leaky",
    "squash": "tanh",
    "step_size": 0.5,
    "fire_rate": 0.25,
    "fire_rescale": True,
    "clamp": (-1, 1),
    "immutable_channels": (1,),
    "alive": None,
}
OTHER_LIVES = {"channel": 1, "threshold": 0.5, "when": "after", "dead_value": -1}


@pytest.mark.parametrize(
    "told", [compiled_modules_are_told, pytest.param(triton_is_told, marks=needs_triton)], ids=["compiled", "triton"]
)
def test_every_field_of_a_rule_reaches_the_backends(told):
    """One that a backend is not told of, it would run without."""
    for of, others in ((Rule, OTHER_RULES), (Alive, OTHER_LIVES)):
        assert {field.name for field in fields(of)} == others.keys()
    first = told(DRAWN)
    for name, value in OTHER_RULES.items():
        assert told(replace(DRAWN, **{name: value})) != first, name
    for name, value in OTHER_LIVES.items():
        assert told(replace(DRAWN, alive=replace(DRAWN.alive, **{name: value}))) != first, f"alive.{name}"


def test_what_is_computed_of_perception_is_told_by_name():
    module, _ = native.extension()
    plan = compiled.lattice_plan(module, SMALL, 1)
    with pytest.raises(ValueError, match="is 'backward'; this build knows: forward, adjoint, bank_gradient"):
        plan.perception("backward", "auto", "float32", 0, 1, 1, None, None, None, None)
    with pytest.raises(ValueError, match="Storage is 'int8'; this build knows: float64"):
        plan.perception("forward", "auto", "int8", 0, 1, 1, None, None, None, None)


# Each a map of an axis that no other boundary is.
NEW_BOUNDARIES = {
    "inner": lambda index, size: index if 0 <= index < size else min(1, size - 1),
    "skewed": lambda index, size: index if 0 <= index < size else (index + 1) % size,
    "one_way": lambda index, size: index % size if index >= 0 else lattice.OUTSIDE,
}


@pytest.fixture(params=NEW_BOUNDARIES)
def new_boundary(request, monkeypatch):
    monkeypatch.setitem(lattice.BOUNDARIES, request.param, NEW_BOUNDARIES[request.param])
    return request.param


@pytest.mark.parametrize("gathers", [False, True])
def test_a_boundary_of_the_table_is_followed(new_boundary, gathers):
    where = Lattice((2, 3, 4), 2, radius=2, boundary=new_boundary)
    torch.manual_seed(0)
    x = torch.randn(2, *where.state_shape, dtype=torch.float64, requires_grad=True)
    filters = None if gathers else torch.randn(2, len(where.offsets), 2, dtype=torch.float64)
    tables = [where.axis_targets(axis) for axis in range(3)]
    seen = [perceive(x, where, filters, backend=name) for name in ("native", "reference")]
    torch.testing.assert_close(*seen)
    if gathers:  # by the definition
        for place, offset in enumerate(where.neighbors):
            cell = (1, 0, 3)
            near = [tables[a][offset[a] + where.reach[a]][cell[a]] for a in range(3)]
            expected = torch.zeros(2) if -1 in near else x[(1, *near)]
            torch.testing.assert_close(seen[0][(1, *cell)][2 * place : 2 * place + 2], expected.double())
    weights = torch.randn_like(seen[0])
    gradients = [torch.autograd.grad((s * weights).sum(), x)[0] for s in seen]
    torch.testing.assert_close(*gradients)
    layer = CubeLayer(where, Rule(perception="gather" if gathers else "depthwise", hidden=4), 3).double()
    results = []
    for layer.backend in ("native", "reference"):
        y = layer(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])))
    for mine, truth in zip(*results, strict=True):
        torch.testing.assert_close(mine, truth)


@needs_triton
def test_a_boundary_unknown_to_triton_is_refused(new_boundary):
    where = Lattice((2, 3, 4), 2, boundary=new_boundary)
    for what in (None, Rule(hidden=3)):
        reason = triton.why_not(where, what, torch.float32, CPU)
        assert reason.startswith(f"it knows no boundary {new_boundary!r}; valid: 'walls', 'periodic'")


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_no_filters_see_nothing(backend, dtype):
    x = torch.randn(2, *SMALL.state_shape, dtype=dtype, requires_grad=True)
    filters = torch.empty(0, len(SMALL.offsets), 2, dtype=dtype, requires_grad=True)
    seen = perceive(x, SMALL, filters, backend=backend)
    assert seen.shape == (2, 3, 4, 5, 0)
    of_x, of_filters = torch.autograd.grad(seen, [x, filters], torch.empty_like(seen))
    assert of_x.equal(torch.zeros_like(x))
    assert of_filters.shape == filters.shape
