"""Every public callable under every transform of torch: the right value, or a refusal by name. What is expected stands
in :mod:`tests.cube_kernels.transforms`, which writes docs/transforms.md too.

What is right is computed another way: by the reference in float64 and by plain autograd, one row of a Jacobian after
another."""

from __future__ import annotations

import copy
import inspect
import io
import itertools
import pickle
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.functional import jacobian
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_module, distribute_tensor
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vjp, vmap

from cube_kernels import (
    CubeLayer,
    EmbeddingCube,
    GMLPCell,
    GRUCell,
    Lattice,
    Rule,
    RuleParameters,
    TokenCube,
    TokenLattice,
    perceive,
    rollout,
    rules,
)
from cube_kernels.backends import native
from tests.conformance.cases import Case, draw_inputs, error
from tests.cube_kernels.transforms import CALLABLES, NOT_ASKED, PAGE, REFERENCE, REFUSALS, TABLE, YES, page

LATTICE = Lattice((1, 2, 3), 2, boundary="periodic")
BACKENDS = ("native", "reference")


class RolloutCall(nn.Module):
    """A rollout with all that it may be given, as a function of the states."""

    case = Case(LATTICE, Rule(filters=2, hidden=3, drive=1, update="gated"), "shared", "shared", batch=2)

    def __init__(self, backend: str) -> None:
        super().__init__()
        inputs, self.backend = draw_inputs(self.case, torch.float64), backend
        for name, tensor in inputs.tensors().items():
            if name != "x":
                self.register_parameter(name, nn.Parameter(tensor.detach()))
        self.register_buffer("write_mask", inputs.write_mask)

    def forward(self, x, steps=3):
        parameters = RuleParameters(*(getattr(self, name, None) for name in RuleParameters._fields))
        result = rollout(
            x, parameters, LATTICE, self.case.rule, steps=steps, drive=self.drive, write_mask=self.write_mask,
            trajectory_every=2, backend=self.backend,
        )  # fmt: skip
        return result.state + result.trajectory.sum(0)


class PerceiveCall(nn.Module):
    def __init__(self, backend: str) -> None:
        super().__init__()
        self.backend, self.filters = backend, nn.Parameter(torch.randn(1, len(LATTICE.offsets), 2))

    def forward(self, x):
        return torch.tanh(perceive(x, LATTICE, self.filters, backend=self.backend))


class Masked(nn.Module):
    """A module of texts, as a function of their tokens."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("mask", torch.tensor([True, True, False]))

    def forward(self, x):
        mask = self.mask.expand(x.shape[0], -1)
        if isinstance(x, DTensor):
            mask = mask.redistribute(placements=[p if p.is_shard(0) else Replicate() for p in x.placements])
        return self.module(x, mask)


def _heat(backend: str) -> CubeLayer:
    layer = rules.heat((1, 2, 3), 1.0, 0.2, channels=2, steps=2)
    layer.backend = backend
    return layer


STATES, RULE = (2, 1, 2, 3, 2), Rule(hidden=2, fixed_filters=("laplacian",), update="leaky", step_size=0.5)
SUBJECTS: dict[str, tuple[Callable[[str], nn.Module], tuple[int, ...]]] = {
    "rollout": (RolloutCall, STATES),
    "perceive": (PerceiveCall, STATES),
    "CubeLayer": (lambda b: CubeLayer(Lattice((1, 2, 3), 2, "moore", boundary="absorbing"), RULE, 2, b), STATES),
    "heat": (_heat, STATES),
    "EmbeddingCube": (lambda b: EmbeddingCube(12, Lattice((1, 2, 3), 2), Rule(hidden=2), 2, backend=b), (2, 12)),
    "TokenLattice": (lambda b: Masked(TokenLattice(Lattice((2, 1, 3), 2), Rule(hidden=2), 2, b)), (2, 3, 4)),
    "TokenCube": (lambda b: Masked(TokenCube(3, Lattice((2, 1, 3), 2), Rule(hidden=2), 2, backend=b)), (2, 3, 3)),
    "GMLPCell": (lambda b: GMLPCell(LATTICE, 2, backend=b), STATES),
    "GRUCell": (lambda b: GRUCell(LATTICE, backend=b), STATES),
}


class Subject(NamedTuple):
    name: str
    backend: str
    module: nn.Module
    x: Tensor

    def parameters(self, module: nn.Module | None = None) -> dict[str, Tensor]:
        return {n: p.detach() for n, p in (module or self.module).named_parameters() if p.requires_grad}


def subject(name: str, backend: str) -> Subject:
    """A new one, with the same numbers each time."""
    make, shape = SUBJECTS[name]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = make(backend).double()
        for parameter in module.parameters():
            if parameter.requires_grad:  # a readout starts at zero: nothing would depend on the rest
                parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
        return Subject(name, backend, module, torch.randn(shape, dtype=torch.float64))


class Truth(NamedTuple):
    result: Tensor
    jacobian: Tensor
    """``[*result, *x]``."""
    parameters: dict[str, Tensor]
    """``[*result, *parameter]`` of each."""
    hessian: Tensor
    """``[*x, *x]`` of :func:`loss`."""


def loss(y: Tensor) -> Tensor:
    return (y * torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).view_as(y)).square().sum()


@cache
def truth(name: str) -> Truth:
    """By the reference and plain autograd, a row at a time."""
    _, _, module, x = subject(name, "reference")
    x.requires_grad_()
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    y = module(x)

    def rows(y: Tensor, *inputs: Tensor) -> list[Tensor]:
        found = [torch.autograd.grad(one, inputs, retain_graph=True) for one in y.flatten()]
        return [
            torch.stack(each).view(*y.shape, *i.shape) for each, i in zip(zip(*found, strict=True), inputs, strict=True)
        ]

    in_x, *rest = rows(y, x, *trained.values())
    (slope,) = torch.autograd.grad(loss(module(x)), x, create_graph=True)
    (hessian,) = rows(slope, x)
    return Truth(y.detach(), in_x, dict(zip(trained, rest, strict=True)), hessian)


close = torch.testing.assert_close
DIRECTION = 7


def direction(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(DIRECTION), dtype=like.dtype)


def pushed(jacobian: Tensor, tangent: Tensor) -> Tensor:
    return torch.tensordot(jacobian, tangent, tangent.dim())


def pulled(cotangent: Tensor, jacobian: Tensor) -> Tensor:
    return torch.tensordot(cotangent, jacobian, cotangent.dim())


def right_gradients(s: Subject, call: Callable[[Tensor], Tensor], module: nn.Module | None = None) -> None:
    """The result and its gradients in the states and the parameters, by plain autograd."""
    module, right = module or s.module, truth(s.name)
    x = s.x.clone().requires_grad_()
    y = call(x)
    close(y, right.result)
    named = {n: p for n, p in module.named_parameters() if p.requires_grad}
    mine = torch.autograd.grad(y, [x, *named.values()], direction(y))
    close(mine[0], pulled(direction(y), right.jacobian))
    for gradient, rows in zip(mine[1:], right.parameters.values(), strict=True):
        close(gradient, pulled(direction(y), rows))


# ------------------------------------------------------------------------------------------------ function transforms


def check_grad(s: Subject) -> None:
    y, pull = vjp(s.module, s.x)
    right = truth(s.name)
    close(y, right.result)
    close(pull(direction(y))[0], pulled(direction(y), right.jacobian))
    y = right.result.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(y), y)
    close(grad(lambda x: loss(s.module(x)))(s.x), pulled(slope, right.jacobian))


def check_grad_in_parameters(s: Subject) -> None:
    right, y = truth(s.name), truth(s.name).result.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(y), y)
    mine = grad(lambda p: loss(functional_call(s.module, p, (s.x,))))(s.parameters())
    close(mine, {n: pulled(slope, j) for n, j in right.parameters.items()})


def check_jvp(s: Subject) -> None:
    right, tangent = truth(s.name), direction(s.x)
    close(jvp(s.module, (s.x,), (tangent,)), (right.result, pushed(right.jacobian, tangent)))
    with torch.no_grad():
        close(jvp(s.module, (s.x,), (tangent,))[1], pushed(right.jacobian, tangent))


def check_jvp_in_parameters(s: Subject) -> None:
    right, parameters = truth(s.name), s.parameters()
    tangents = {n: direction(p) for n, p in parameters.items()}
    _, mine = jvp(lambda p: functional_call(s.module, p, (s.x,)), (parameters,), (tangents,))
    close(mine, sum(pushed(j, tangents[n]) for n, j in right.parameters.items()))


def check_jvp_of_frozen(s: Subject) -> None:
    s.module.requires_grad_(False)
    check_jvp(s)


def check_dual(s: Subject) -> None:
    right, tangent = truth(s.name), direction(s.x)
    for enabled in (True, False):
        with forward_ad.dual_level(), torch.set_grad_enabled(enabled):
            y, mine = forward_ad.unpack_dual(s.module(forward_ad.make_dual(s.x, tangent)))
        close(y, right.result)
        close(mine, pushed(right.jacobian, tangent))
        s.module.requires_grad_(False)


def check_dual_cotangent(s: Subject) -> None:
    """A gradient whose cotangent carries a derivative forward."""
    x = s.x.clone().requires_grad_()
    y = s.module(x)
    with forward_ad.dual_level():
        cotangent = forward_ad.make_dual(torch.ones_like(y), direction(y))
        (gradient,) = torch.autograd.grad(y, x, cotangent)
        mine = forward_ad.unpack_dual(gradient).tangent
    close(mine, pulled(direction(y), truth(s.name).jacobian))


def check_jvp_of_vjp(s: Subject) -> None:
    y, pull = vjp(s.module, s.x)
    _, mine = jvp(lambda c: pull(c)[0], (torch.ones_like(y),), (direction(y),))
    close(mine, pulled(direction(y), truth(s.name).jacobian))


def check_jacfwd(s: Subject) -> None:
    close(jacfwd(s.module)(s.x), truth(s.name).jacobian)


def check_jacrev(s: Subject) -> None:
    close(jacrev(s.module)(s.x), truth(s.name).jacobian)


def check_hessian(s: Subject) -> None:
    close(torch.func.hessian(lambda x: loss(s.module(x)))(s.x), truth(s.name).hessian)


def check_grad_of_grad(s: Subject) -> None:
    close(jacrev(grad(lambda x: loss(s.module(x))))(s.x), truth(s.name).hessian)


def check_create_graph(s: Subject) -> None:
    x = s.x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(s.module(x)), x, create_graph=True)
    (mine,) = torch.autograd.grad(slope, x, direction(x))
    close(mine, pulled(direction(x), truth(s.name).hessian))


def check_vmap(s: Subject) -> None:
    several = torch.stack([s.x, s.x.flip(0), 2 * s.x], dim=1)
    close(vmap(s.module, in_dims=1)(several), torch.stack([s.module(x) for x in several.unbind(1)]))


def check_vmap_over_parameters(s: Subject) -> None:
    stacked = {n: torch.stack([p, 2 * p]) for n, p in s.parameters().items()}
    mine = vmap(lambda p: functional_call(s.module, p, (s.x,)))(stacked)
    close(mine[0], truth(s.name).result)
    twice = {n: p[1] for n, p in stacked.items()}
    other = subject(s.name, "reference").module
    close(mine[1], functional_call(other, twice, (s.x,)))


def check_gradients_of_each_sample(s: Subject) -> None:
    """vmap of grad, the usual way to gradients of each sample."""

    def sample(p, x):
        return functional_call(s.module, p, (x[None],)).square().sum()

    mine = vmap(grad(sample), in_dims=(None, 0))(s.parameters(), s.x)
    right, y = truth(s.name), truth(s.name).result
    for name, rows in right.parameters.items():
        each = [pulled(2 * y[i], rows[i]) for i in range(len(y))]
        close(mine[name], torch.stack(each))


def check_functional_call(s: Subject) -> None:
    other = copy.deepcopy(s.module)
    for parameter in other.parameters():
        parameter.data.zero_()
    named = dict(s.module.named_parameters())
    right_gradients(s, lambda x: functional_call(other, named, (x,)))


def check_batched_gradients(s: Subject) -> None:
    x = s.x.clone().requires_grad_()
    y = s.module(x)
    basis = torch.eye(y.numel(), dtype=y.dtype).view(-1, *y.shape)
    (mine,) = torch.autograd.grad(y, x, basis, is_grads_batched=True)
    close(mine.view(*y.shape, *x.shape), truth(s.name).jacobian)
    close(jacobian(s.module, s.x, vectorize=True), truth(s.name).jacobian)


def check_vectorized_forward(s: Subject) -> None:
    mine = jacobian(s.module, s.x, vectorize=True, strategy="forward-mode")
    close(mine, truth(s.name).jacobian)


# ---------------------------------------------------------------------------------------------------------- compilers


def check_compile(s: Subject) -> None:
    torch._dynamo.reset()
    right_gradients(s, torch.compile(s.module, fullgraph=True, backend="aot_eager"))


def several(s: Subject) -> list[Tensor]:
    """Batches of nine sizes, none that of an axis: equal sizes are one to a compiler."""
    return [s.x[:1].expand(n, *s.x.shape[1:]).contiguous() for n in range(5, 14)]


def check_compile_any_batch(s: Subject) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(s.module, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for x in several(s):
            close(compiled(x), truth(s.name).result[:1].expand(len(x), *[-1] * (truth(s.name).result.dim() - 1)))


def check_compile_any_steps(s: Subject) -> None:
    torch._dynamo.reset()
    other = subject(s.name, "reference").module
    compiled = torch.compile(s.module, fullgraph=True, dynamic=True, backend="aot_eager")
    # Of fewer steps, none or one state is kept, and compilers make graphs of their own of 0 and 1.
    with torch._dynamo.config.patch(error_on_recompile=True):
        for steps, x in zip(range(7, 16), several(s), strict=True):
            close(compiled(x, steps=steps), other(x, steps=steps))


def check_inductor(s: Subject) -> None:
    torch._dynamo.reset()
    right_gradients(s, torch.compile(s.module, fullgraph=True))


def _exported(s: Subject, strict: bool) -> None:
    torch._dynamo.reset()
    program = torch.export.export(s.module, (s.x,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    x = torch.cat([s.x, s.x.flip(0)])
    close(loaded(x), torch.cat([truth(s.name).result, truth(s.name).result.flip(0)]))


def check_export(s: Subject) -> None:
    _exported(s, strict=False)


def check_export_strict(s: Subject) -> None:
    _exported(s, strict=True)


def check_aot_inductor(s: Subject, tmp_path) -> None:
    s.module.requires_grad_(False)
    program = torch.export.export(s.module, (s.x,))
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    close(torch._inductor.aoti_load_package(path)(s.x), truth(s.name).result)


def check_trace(s: Subject) -> None:
    """Trained, as the traced program is by itself."""
    traced = torch.jit.trace(s.module, s.x)
    right_gradients(s, traced)
    close(traced(2 * s.x), s.module(2 * s.x))


def check_trace_of_frozen(s: Subject) -> None:
    s.module.requires_grad_(False)
    traced = torch.jit.trace(s.module, torch.zeros_like(s.x))
    close(traced(s.x), truth(s.name).result)


def check_trace_without_gradients(s: Subject) -> None:
    with torch.no_grad():
        traced = torch.jit.trace(s.module, torch.zeros_like(s.x))
        close(traced(s.x), truth(s.name).result)
    right_gradients(s, traced)


# ------------------------------------------------------------------------------------------------------ modes, copies


def check_autocast(s: Subject) -> None:
    """Rounded to bfloat16 on the way, and no more than that: on both backends."""
    module, x = s.module.float(), s.x.float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    eps, right = torch.finfo(torch.bfloat16).eps, truth(s.name)
    assert 1e-5 < error(y, right.result) < 2 * eps
    (gradient,) = torch.autograd.grad(y, x, direction(y.double()).to(y.dtype))
    assert gradient.dtype is torch.float32
    assert error(gradient, pulled(direction(right.result), right.jacobian)) < 4 * eps


def check_inference(s: Subject) -> None:
    with torch.inference_mode():
        y = s.module(s.x)
        close(s.module(s.x.clone()), truth(s.name).result)
    assert y.is_inference()
    close(y.clone(), truth(s.name).result)
    right_gradients(s, s.module)  # nothing of the mode stayed behind


def check_deepcopy(s: Subject) -> None:
    other = copy.deepcopy(s.module)
    right_gradients(s, other, other)


def check_pickle(s: Subject) -> None:
    other = pickle.loads(pickle.dumps(s.module))
    right_gradients(s, other, other)


# -------------------------------------------------------------------------------------------------- several processes


def _spread(s: Subject, mesh, *placements) -> tuple[nn.Module, Tensor]:
    return distribute_module(s.module, mesh), distribute_tensor(s.x, mesh, placements).requires_grad_()


def _right_on(s: Subject, mesh, placement) -> None:
    module, x = _spread(s, mesh, placement)
    y, right = module(x), truth(s.name)
    assert isinstance(y, DTensor)
    close(y.full_tensor(), right.result)
    cotangent = distribute_tensor(direction(right.result), mesh, y.placements)
    names = [n for n, p in module.named_parameters() if p.requires_grad]
    mine = torch.autograd.grad(y, [x, *(dict(module.named_parameters())[n] for n in names)], cotangent)
    close(mine[0].full_tensor(), pulled(direction(right.result), right.jacobian))
    for name, gradient in zip(names, mine[1:], strict=True):
        close(gradient.full_tensor(), pulled(direction(right.result), right.parameters[name]))


def check_replicated(s: Subject, mesh) -> None:
    _right_on(s, mesh, Replicate())


def check_sharded(s: Subject, mesh) -> None:
    _right_on(s, mesh, Shard(0))


def check_shards_of_a_lattice(s: Subject, mesh) -> None:
    module = distribute_module(s.module, mesh)
    module(DTensor.from_local(s.x, mesh, [Shard(1)]))


def test_sums_to_be_made_are_refused(mesh):
    """As shards of a lattice are; modules that hand on what is whole get it."""
    for name, backend in itertools.product(("rollout", "perceive", "CubeLayer"), BACKENDS):
        module = distribute_module(subject(name, backend).module, mesh)
        with pytest.raises(ValueError, match=r"x has the placement P\(sum\); valid: Replicate\(\), Shard\(0\)"):
            module(DTensor.from_local(subject(name, backend).x, mesh, [Partial()]))


def check_fsdp(s: Subject, mesh) -> None:
    fully_shard(s.module, mesh=mesh)
    x, right = s.x.clone().requires_grad_(), truth(s.name)
    y = s.module(x)
    close(y, right.result)
    y.backward(direction(y))
    close(x.grad, pulled(direction(y), right.jacobian))
    for name, parameter in s.module.named_parameters():
        if parameter.requires_grad:
            close(parameter.grad.full_tensor(), pulled(direction(y), right.parameters[name]))


# ------------------------------------------------------------------------------------------------- what is kept, hooks


def check_saved_tensor_hooks(s: Subject) -> None:
    """That give back other tensors, of the same numbers in another layout."""

    def pack(tensor):
        return tensor.detach()[..., None].repeat_interleave(2, dim=-1)

    def unpack(kept):
        return kept[..., 0]

    def call(x):
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            return s.module(x)

    right_gradients(s, call)


def check_checkpoint(s: Subject) -> None:
    right_gradients(s, lambda x: torch.utils.checkpoint.checkpoint(s.module, x, use_reentrant=False))


def check_reentrant_checkpoint(s: Subject) -> None:
    x, right = s.x.clone().requires_grad_(), truth(s.name)
    y = torch.utils.checkpoint.checkpoint(s.module, x, use_reentrant=True)
    close(y, right.result)
    y.backward(direction(y))
    close(x.grad, pulled(direction(y), right.jacobian))
    for name, parameter in s.module.named_parameters():
        if parameter.requires_grad:
            close(parameter.grad, pulled(direction(y), right.parameters[name]))


# ---------------------------------------------------------------------------------------------------------- the table

# A minute each, and half of that; what they prove is proved by others for one backend, or by another compiler.
SLOW = {"inductor": BACKENDS, "aot_inductor": BACKENDS, "compile": ["reference"], "export_strict": ["reference"]}


def cells():
    for (transform, row), name, backend in itertools.product(TABLE.items(), CALLABLES, BACKENDS):
        if row.mark(name, backend) != NOT_ASKED:
            marks = [pytest.mark.sweep] if backend in SLOW.get(transform, ()) else []
            yield pytest.param(transform, name, backend, marks=marks, id=f"{transform}-{name}-{backend}")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    """Of this process alone."""
    store = tmp_path_factory.mktemp("group") / "store"
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.fixture
def kernel_calls(monkeypatch):
    """The native kernels that are run, by name."""
    calls: list[str] = []

    def watched(name: str, kernel: Callable) -> Callable:
        return lambda *arguments, **named: (calls.append(name), kernel(*arguments, **named))[1]

    for name in ("forward", "backward", "perceive", "perceive_adjoint", "filter_gradient"):
        monkeypatch.setattr(native, name, watched(name, getattr(native, name)))
    return calls


@pytest.mark.filterwarnings("ignore")  # tracers and compilers warn of much
@pytest.mark.parametrize(("transform", "name", "backend"), list(cells()))
def test_a_cell_of_the_table(transform, name, backend, kernel_calls, request):
    """The right value, by who is to compute it, or the refusal that the table names."""
    check, mark = globals()[f"check_{transform}"], TABLE[transform].mark(name, backend)
    needed = [n for n in ("mesh", "tmp_path") if n in inspect.signature(check).parameters]
    one, given = subject(name, backend), {n: request.getfixturevalue(n) for n in needed}
    truth(name)
    if mark in REFUSALS:
        with pytest.raises(Exception, match=f"(?s){REFUSALS[mark][0]}"):
            check(one, **given)
        return
    check(one, **given)
    if mark == REFERENCE or backend == "reference":
        assert not kernel_calls
    else:
        assert mark == YES
        assert kernel_calls


def test_every_check_has_its_row():
    assert {f"check_{transform}" for transform in TABLE} == {name for name in globals() if name.startswith("check_")}


def test_the_page_is_the_table():
    """`python -m tests.cube_kernels.transforms` writes it."""
    assert PAGE.read_text() == page()
