"""The operators, and what torch does to calls: compilers, exports, function transforms, autocast, copies."""

import copy
import io
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, jacrev, vmap

from cube_kernels import (
    Alive,
    CubeLayer,
    EmbeddingCube,
    GRUCell,
    Lattice,
    Rule,
    RuleParameters,
    bind,
    perceive,
    rollout,
)
from tests.conformance.cases import Case, draw_inputs

operators = torch.ops.cube_kernels

LATTICE = Lattice((2, 3, 4), 5)
PLAIN = Case(LATTICE, Rule(filters=2, hidden=6), batch=2)
FULL = Case(
    Lattice((2, 1, 3), 4, "moore", boundary="absorbing"),
    Rule(
        filters=1, fixed_filters=("laplacian",), drive=2, hidden=5, update="leaky", step_size=0.5, fire_rate=0.5,
        fire_rescale=True, clamp=(-1, 1), immutable_channels=(1,), alive=Alive(0, 0.1),
    ),
    "each", "shared", trajectory_every=2, tolerance=0.1, batch=3,
)  # fmt: skip
SHARED = Case(LATTICE, Rule(filters=2, hidden=6, drive=2), "shared", "each", batch=2)


def options(case: Case, steps: int = 3, **changes) -> dict:
    named = {"steps": steps, "seed": case.seed, "trajectory_every": case.trajectory_every, "tolerance": case.tolerance}
    return named | changes


def states(case: Case, batch: int = 4, **changes) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, *case.lattice.shape, case.lattice.channels, generator=generator, **changes)


def whole_call(case: Case, dtype=torch.float32, rearrange=lambda tensor: tensor) -> tuple:
    """The arguments of the operator of a whole rollout."""
    inputs = draw_inputs(case, dtype).map(rearrange)
    call = options(case)
    return (
        inputs.x, *inputs.parameters, case.lattice.key, case.rule.key, call["steps"], inputs.drive, inputs.write_mask,
        call["seed"], None, call["trajectory_every"], call["tolerance"], "native",
    )  # fmt: skip


def forward_call(case: Case, rearrange=lambda tensor: tensor) -> tuple:
    """The arguments of the operator that the native backend runs."""
    inputs = draw_inputs(case, torch.float32).map(rearrange)
    weights = [
        None if w is None else w.detach().requires_grad_()
        for w in bind(case.lattice, case.rule).step_weights(inputs.parameters, inputs.x)
    ]
    return (
        inputs.x, *weights, inputs.drive, inputs.write_mask, "native", case.lattice.key, case.rule.key, 3, 2,
        case.seed or 0, case.trajectory_every or 0, -1.0 if case.tolerance is None else case.tolerance,
    )  # fmt: skip


def permuted(tensor: torch.Tensor) -> torch.Tensor:
    """Dense, but not in order."""
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


def strided(tensor: torch.Tensor) -> torch.Tensor:
    """Every second element of something larger."""
    return tensor.repeat_interleave(2, dim=-1)[..., ::2]


def detached(arguments: tuple) -> tuple:
    return tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in arguments)


# ---------------------------------------------------------------------------------------------------- registration


@pytest.mark.parametrize("case", [PLAIN, FULL, SHARED], ids=["plain", "full", "shared"])
def test_rollout_passes_opcheck(case):
    torch.library.opcheck(operators.rollout_forward, forward_call(case))


@pytest.mark.parametrize("rearrange", [permuted, strided])
def test_rollout_passes_opcheck_in_any_layout(rearrange):
    arguments = forward_call(SHARED, rearrange)
    assert not arguments[0].is_contiguous()
    torch.library.opcheck(operators.rollout_forward, arguments)


def test_the_whole_call_passes_opcheck():
    torch.library.opcheck(operators.rollout, whole_call(PLAIN))


@pytest.mark.parametrize("case", [PLAIN, FULL], ids=["plain", "full"])
def test_what_the_backward_pass_calls_passes_opcheck(case):
    arguments = detached(forward_call(case))
    # A sample that stops leaves its later checkpoints unwritten.
    unstopped = detached(forward_call(replace(case, tolerance=None)))
    torch.library.opcheck(operators.rollout_with_checkpoints, unstopped)
    state, trajectory, taken, checkpoints = operators.rollout_with_checkpoints(*arguments)
    torch.library.opcheck(operators.rollout_backward, (state, trajectory, taken, checkpoints, *arguments))


@pytest.mark.parametrize("filters", [2, None])
def test_perception_passes_opcheck(filters):
    x, vectors = permuted(states(PLAIN)).requires_grad_(), filters or len(LATTICE.neighbors)
    bank = None if filters is None else strided(torch.randn(filters, 7, 5)).requires_grad_()
    percepts = permuted(torch.randn(4, 2, 3, 4, vectors * 5)).requires_grad_()
    call = ("native", LATTICE.key)
    torch.library.opcheck(operators.perceive, (x, bank, LATTICE.key, "native"))
    torch.library.opcheck(operators.perceive_forward, (x, bank, *call))
    torch.library.opcheck(operators.perceive_adjoint, (percepts, bank, *call))
    if filters is not None:
        torch.library.opcheck(operators.filter_gradient, (x, percepts, *call))


@pytest.mark.parametrize("value", [LATTICE, FULL.lattice, Lattice((1, 2, 3), 1, ((0, 0, 0), (0, 1, -2)))])
def test_a_lattice_is_its_text(value):
    assert Lattice.from_key(value.key) == value
    assert Lattice.from_key(value.key).offsets == value.offsets


@pytest.mark.parametrize("value", [PLAIN.rule, FULL.rule])
def test_a_rule_is_its_text(value):
    assert Rule.from_key(value.key) == value


def test_perception_is_differentiable_any_number_of_times_through_operators():
    x = states(PLAIN, 1, dtype=torch.float64).requires_grad_()
    bank = torch.randn(2, 7, 5, dtype=torch.float64, requires_grad=True)

    def call(x, bank):
        return operators.perceive_forward(x, bank, "native", LATTICE.key)

    assert torch.autograd.gradcheck(call, (x, bank), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (x, bank), fast_mode=True)
    third = grad(grad(grad(lambda s: call(s * x, s * bank).pow(2).sum())))(torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(third, 24 * call(x, bank).square().sum())


def test_a_second_derivative_of_the_rollout_is_refused():
    layer, x = CubeLayer(LATTICE, PLAIN.rule, 2, backend="native"), states(PLAIN)
    with pytest.raises(RuntimeError, match="'native' is differentiable once.*backend='reference'"):
        grad(lambda x: grad(lambda x: layer(x).sum())(x).square().sum())(x)


def test_checkpoints_are_kept_for_gradients_alone():
    """The operator that keeps them runs only where a gradient will be asked for, inside function transforms too."""
    kept = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            kept.append("checkpoints" in str(function))
            return function(*args, **(kwargs or {}))

    layer, x = CubeLayer(LATTICE, PLAIN.rule, 2, backend="native"), states(PLAIN)
    frozen = copy.deepcopy(layer).requires_grad_(False)

    def watched(call) -> bool:
        kept.clear()
        with Watch():
            call()
        return any(kept)

    assert watched(lambda: layer(x))
    assert not watched(lambda: frozen(x))
    assert not watched(lambda: vmap(frozen)(x[None]))
    assert watched(lambda: grad(lambda x: vmap(frozen)(x[None]).sum())(x))
    with torch.no_grad():
        assert not watched(lambda: layer(x))


# ------------------------------------------------------------------------------------------------------- compilers


def both(model: nn.Module, compiled: nn.Module, *inputs, **named) -> None:
    """The compiled model's results and gradients are the eager one's."""
    results = []
    for run in (model, compiled):
        taking = [i.detach().clone().requires_grad_() for i in inputs]
        result = run(*taking, **named)
        outputs = [result] if isinstance(result, torch.Tensor) else [result.state, result.trajectory]
        loss = sum(o.double().square().sum() for o in outputs)
        results.append([*outputs, *torch.autograd.grad(loss, [*taking, *model.parameters()])])
        if not isinstance(result, torch.Tensor):
            results[-1].append(result.steps)
    for eager, mine in zip(*results, strict=True):
        torch.testing.assert_close(mine, eager)


@pytest.fixture
def once():
    """Compiling a second time is an error."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("case", [PLAIN, FULL], ids=["plain", "full"])
def test_a_compiled_layer_is_the_layer(case):
    """With any batch and any seed, compiled once."""
    layer = CubeLayer(case.lattice, case.rule, 3, backend="native")
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    for batch, seed in ((7, 5), (9, 2**62 + 11), (8, 123456789)):
        inputs = [states(case, batch)]
        if case.rule.drive:
            inputs.append(torch.randn(batch, *case.lattice.shape, case.rule.drive))
        named = {n: v for n, v in options(case).items() if n != "seed"}
        both(layer, compiled, *inputs, **named, **({"seed": seed} if case.seed else {}))


@pytest.mark.usefixtures("once")
def test_a_compiled_reference_is_the_reference():
    rule = Rule(hidden=3, fire_rate=0.5, fixed_filters=("laplacian",))
    layer = CubeLayer(Lattice((1, 2, 3), 4, "moore", boundary="absorbing"), rule, 2, backend="reference")
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, seed in ((7, 5), (9, 2**62 + 11), (8, 6)):
        both(layer, compiled, torch.randn(batch, 1, 2, 3, 4), seed=seed)


@pytest.mark.sweep
@pytest.mark.usefixtures("once")
def test_inductor_draws_the_fire_mask():
    """Its integers are those of the eager draw; it once took a symbolic seed for a float."""
    layer = CubeLayer(Lattice((1, 2, 3), 4), Rule(hidden=3, fire_rate=0.5), 1, backend="reference")
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    for seed in (5, 2**62 + 11):
        both(layer, compiled, torch.randn(7, 1, 2, 3, 4), seed=seed)


class Model(nn.Module):
    """A cube and a composed cell in the middle of others."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 48), nn.Linear(48, 3)
        self.cube = EmbeddingCube(48, Lattice((2, 2, 2), 4), Rule(hidden=5), 2)
        self.cell = GRUCell(Lattice((2, 2, 2), 6, boundary="absorbing"))
        nn.init.normal_(self.cube.readout)

    def forward(self, x):
        hidden = self.cube(torch.tanh(self.first(x)))
        return self.last(self.cell(hidden.view(-1, 2, 2, 2, 6), steps=2).flatten(1))


@pytest.mark.usefixtures("once")
def test_a_compiled_model_is_the_model():
    model = Model()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (5, 7):
        both(model, compiled, torch.randn(batch, 6))


def test_a_wrong_call_is_refused_while_compiling():
    torch._dynamo.reset()
    layer = CubeLayer(LATTICE, PLAIN.rule, 1)
    with pytest.raises(Exception, match=r"x has shape \[2, 2, 3, 4, 6\]; this lattice takes \[B, 2, 3, 4, 5\]"):
        torch.compile(layer, fullgraph=True, backend="eager")(torch.zeros(2, 2, 3, 4, 6))


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_runs_in_another_process(tmp_path, strict):
    torch._dynamo.reset()
    model = nn.Sequential(CubeLayer(FULL.lattice, Rule(hidden=3, fixed_filters=("laplacian",)), 2), nn.Linear(4, 2))
    dynamic = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(model, (states(FULL, 5),), dynamic_shapes=dynamic, strict=strict)
    torch.export.save(program, tmp_path / "program.pt2")
    x = states(FULL, 7)
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys, torch, cube_kernels\n"
        "model, x = torch.export.load(sys.argv[1] + '/program.pt2').module(), torch.load(sys.argv[1] + '/x.pt')\n"
        "torch.save(model(x).detach(), sys.argv[1] + '/y.pt')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert torch.equal(torch.load(tmp_path / "y.pt"), model(x))


# --------------------------------------------------------------------------------------------- function transforms


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("mapped", ["x", "drive", "write_mask", "hidden_weight", "filters"])
def test_vmap_gives_each_its_own(backend, mapped):
    case = Case(LATTICE, Rule(filters=2, hidden=6, drive=2), "each", "each", 2, 0.05, batch=2)
    inputs = draw_inputs(case, torch.float32)
    tensors = {n: t.detach() for n, t in inputs.tensors().items()} | {"write_mask": inputs.write_mask}
    several = [tensors[mapped], tensors[mapped].flip(0), tensors[mapped].roll(1, dims=1)]

    def call(tensor):
        given = tensors | {mapped: tensor}
        parameters = RuleParameters(**{n: given[n] for n in RuleParameters._fields if n in given})
        return tuple(
            rollout(
                given["x"], parameters, case.lattice, case.rule, **options(case), drive=given["drive"],
                write_mask=given["write_mask"], backend=backend,
            )
        )  # fmt: skip

    expected = zip(*map(call, several), strict=True)
    for mine, each in zip(vmap(call, in_dims=2)(torch.stack(several, dim=2)), expected, strict=True):
        torch.testing.assert_close(mine, torch.stack(each))


@pytest.mark.parametrize("mapped", [(0, None), (None, 0), (0, 0)])
def test_vmap_of_perception_gives_each_its_own(mapped):
    x, bank = torch.randn(3, 2, *LATTICE.shape, 5), torch.randn(3, 2, 7, 5)

    def call(x, bank):
        return perceive(x, LATTICE, bank)

    pick = [tensor if dim is not None else tensor[0] for tensor, dim in zip((x, bank), mapped, strict=True)]
    each = [call(*(t[i] if d is not None else t for t, d in zip(pick, mapped, strict=True))) for i in range(3)]
    torch.testing.assert_close(vmap(call, in_dims=mapped)(*pick), torch.stack(each))


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_gradients_of_functional_calls_are_autograds(backend):
    layer, x = CubeLayer(LATTICE, Rule(hidden=3, fixed_filters=("laplacian",)), 2, backend=backend), states(PLAIN)
    parameters = {n: p.detach() for n, p in layer.named_parameters()}

    def loss(parameters, x):
        return functional_call(layer, parameters, (x,)).square().sum()

    mine = grad(loss)(parameters, x)
    expected = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    torch.testing.assert_close(list(mine.values()), list(expected))
    each = vmap(grad(loss), in_dims=(None, 0))(parameters, x[:, None])  # of each sample
    torch.testing.assert_close([g.sum(0) for g in each.values()], list(expected))
    assert layer(x).requires_grad  # nothing of the transforms has stayed behind


def test_jacrev_is_the_jacobian():
    layer = CubeLayer(Lattice((1, 1, 2), 2), Rule(hidden=3), 2)
    x = torch.randn(1, 1, 1, 2, 2)
    torch.testing.assert_close(jacrev(layer)(x), torch.autograd.functional.jacobian(layer, x))


# ------------------------------------------------------------------------------------------- tensors without values


def test_an_empty_batch_goes_through():
    arguments = list(detached(forward_call(PLAIN)))
    arguments[0] = arguments[0][:0].requires_grad_()
    state, _, _ = operators.rollout_forward(*arguments)
    assert state.shape == (0, 2, 3, 4, 5)
    assert torch.autograd.grad(state.sum(), arguments[0])[0].shape == state.shape


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_shapes_are_known_without_memory(device):
    """Of 16 GiB, as meta tensors and as fake ones of a CPU."""
    layer = CubeLayer(Lattice((64, 64, 64), 16), Rule(hidden=8), 2).to(device)
    batch = 2**31 // 64**3 // 16 + 1

    def call(x):
        return layer(x, trajectory_every=1)

    if device == "meta":
        with torch.no_grad():
            state, trajectory, _ = call(torch.empty(batch, 64, 64, 64, 16, device="meta"))
    else:
        with FakeTensorMode(allow_non_fake_inputs=True):
            state, trajectory, _ = call(torch.empty(batch, 64, 64, 64, 16))
    assert state.numel() > 2**31
    assert trajectory.shape == (2, *state.shape)


def test_no_table_of_a_transform_outlives_it():
    """Tables first made under fake tensors, inference or functorch serve later calls."""
    x = torch.randn(2, 1, 2, 3, 4)

    def fresh(width: int) -> CubeLayer:
        lattice = Lattice((1, 2, 3), 4, "moore", boundary="absorbing", sponge_width=width)
        return CubeLayer(lattice, Rule(hidden=3, fixed_filters=("laplacian",)), 2, backend="reference")

    def faked(layer):
        with FakeTensorMode(allow_non_fake_inputs=True):
            layer(torch.empty_like(x))

    def inferred(layer):
        with torch.inference_mode():
            layer(x)

    first = [faked, inferred, lambda layer: grad(lambda x: layer(x).sum())(x), lambda layer: vmap(layer)(x[None])]
    for width, use in enumerate(first, start=11):  # lattices that nothing has met
        layer = fresh(width)
        use(layer)
        layer(x).sum().backward()


# ------------------------------------------------------------------------------------------------- what users do


def test_a_checkpointed_layer_has_the_same_gradients():
    layer, x = CubeLayer(LATTICE, PLAIN.rule, 3), states(PLAIN).requires_grad_()
    wrapped = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    mine = torch.autograd.grad(wrapped.square().sum(), [x, *layer.parameters()])
    expected = torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()])
    assert all(map(torch.equal, mine, expected))


@pytest.mark.parametrize("compiled", [False, True])
def test_autocast_is_casting_by_hand(compiled):
    torch._dynamo.reset()
    layer, x = CubeLayer(LATTICE, PLAIN.rule, 2, backend="native"), states(PLAIN)
    run = torch.compile(layer, fullgraph=True, backend="aot_eager") if compiled else layer
    with torch.autocast("cpu", torch.bfloat16):
        mine = run(x)
    by_hand = copy.deepcopy(layer).bfloat16()(x.bfloat16())
    assert mine.dtype is torch.bfloat16
    assert torch.equal(mine, by_hand)
    gradients = torch.autograd.grad(mine.float().square().sum(), list(layer.parameters()))
    assert all(g.dtype is torch.float32 and g.abs().sum() > 0 for g in gradients)


def test_copies_of_a_layer_compute_the_same():
    layer, x = CubeLayer(FULL.lattice, FULL.rule, 2), states(FULL)
    drive = torch.randn(1, *FULL.lattice.shape, 2)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(buffer, weights_only=False)]
    for one in copies:
        assert torch.equal(one(x, drive, seed=3), layer(x, drive, seed=3))


def _train_in_parallel(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    layer = CubeLayer(LATTICE, PLAIN.rule, 2)
    x = states(PLAIN, 4)
    parallel = nn.parallel.DistributedDataParallel(layer)
    F.mse_loss(parallel(x[2 * rank : 2 * rank + 2]), x[:2]).backward()
    if rank == 0:
        torch.save([p.grad for p in layer.parameters()], f"{folder}/gradients.pt")
    torch.distributed.barrier()  # none leaves while another still talks to it
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path):
    torch.multiprocessing.spawn(_train_in_parallel, (str(tmp_path),), nprocs=2)
    torch.manual_seed(0)
    layer, x = CubeLayer(LATTICE, PLAIN.rule, 2), states(PLAIN, 4)
    F.mse_loss(layer(x), x[:2].repeat(2, 1, 1, 1, 1)).backward()
    torch.testing.assert_close(torch.load(tmp_path / "gradients.pt"), [p.grad for p in layer.parameters()])
