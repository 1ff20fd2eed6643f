"""What ``python -m tests.cube_kernels.fuzz`` does: calls the operators and the public functions with one argument that
is odd or wrong, each kind in the place of each argument; with a seed, with two at once, drawn. Before a case it writes
its name, after it how it ended; a crash leaves the name last.

A case ends well in a result that the reference confirms in float64, or in an exception of a kind that a caller expects.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import math
import random
import resource
import sys
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.func import vmap
from torch.utils import _pytree as pytree

from cube_kernels import Alive, Lattice, Rule, RuleParameters, bind, perceive, rollout
from cube_kernels.automaton import StepWeights
from cube_kernels.backends import reference
from cube_kernels.backends.contract import Call, Schedule
from cube_kernels.call.derivatives import ROLLOUT_TENSORS
from cube_kernels.call.options import Options
from tests.conformance.cases import Case, draw_inputs, error

MEMORY = 8 * 2**30
"""Of addresses: what asks for more gets an error."""

REFUSALS = (ValueError, TypeError, RuntimeError, MemoryError, OverflowError)
OF_TORCH = ("Please convert all Tensors to FakeTensors", "interpreter must not be None", "convert this to real tensor")
"""Assertions by which torch refuses what belongs to a mode or a transform outside it."""

CASE = Case(
    Lattice((2, 1, 3), 4, "moore", boundary="absorbing"),
    Rule(
        filters=1, fixed_filters=("laplacian",), drive=2, hidden=5, update="leaky", step_size=0.5, fire_rate=0.5,
        fire_rescale=True, clamp=(-1, 1), immutable_channels=(1,), alive=Alive(0, 0.1),
    ),
    "each", "shared", trajectory_every=2, tolerance=0.01, batch=3,
)  # fmt: skip
LATTICE = CASE.lattice
STEPS = 3


# ------------------------------------------------------------------------------------------------- what tensors may be


class Plain(Tensor):
    """A subclass that changes nothing."""


class Wrapper(Tensor):
    """A subclass without memory of its own, which hands on what it holds."""

    @staticmethod
    def __new__(cls, held: Tensor) -> Tensor:
        return Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=held.device)

    def __init__(self, held: Tensor) -> None:
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        args, kwargs = pytree.tree_map(lambda a: a.held if isinstance(a, cls) else a, (args, kwargs or {}))
        return function(*args, **kwargs)


def dead(tensor: Tensor) -> Tensor:
    """What a transform leaves behind."""
    kept = []
    vmap(lambda t: (kept.append(t), t)[1])(tensor[None])
    return kept[0]


def overlapping(tensor: Tensor) -> Tensor:
    """All elements within a few places of memory."""
    return tensor.flatten().as_strided(tensor.shape, [1] * tensor.dim()) if tensor.numel() > 9 else tensor


def far(tensor: Tensor) -> Tensor:
    """Dimensions of one element with strides that lead out of memory."""
    strides = [2**40 if size == 1 else stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)]
    return tensor.as_strided(tensor.shape, strides)


def offset(tensor: Tensor) -> Tensor:
    """Somewhere in a larger memory, at no round address."""
    larger = torch.full((tensor.numel() + 5,), 7, dtype=tensor.dtype)
    return larger[3 : 3 + tensor.numel()].copy_(tensor.flatten()).view(tensor.shape)


FAKE = FakeTensorMode()


def fake(tensor: Tensor) -> Tensor:
    """Outside its mode."""
    return FAKE.from_tensor(tensor)


def resized(change: int, dim: int, tensor: Tensor) -> Tensor:
    size = max(0, tensor.shape[dim] + change)
    return tensor.new_zeros((*tensor.shape[:dim], size, *tensor.shape[dim + 1 :]))


# The same numbers, otherwise.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "permuted": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "expanded": lambda t: t[:1].expand(t.shape),
    "overlapping": overlapping,
    "far": far,
    "offset": offset,
    "every second": lambda t: t.repeat_interleave(2, dim=-1)[..., ::2],
    "plain subclass": lambda t: t.as_subclass(Plain),
    "parameter": lambda t: torch.nn.Parameter(t, t.is_floating_point()),
    "wrapper subclass": Wrapper,
    "negated": lambda t: torch._neg_view(t),
    "zeros without memory": lambda t: torch._efficientzerotensor(t.shape, dtype=t.dtype),
    "conjugate": lambda t: torch.view_as_real(torch.view_as_complex(t.repeat_interleave(2, -1)).conj())[..., :1],
    "imaginary part": lambda t: torch.complex(t, t).conj().imag,
    "sparse": lambda t: t.to_sparse(),
    "compressed": lambda t: t.flatten(1).to_sparse_csr(),
    "mkldnn": lambda t: t.to_mkldnn(),
    "dead": dead,
    "fake": fake,
    "meta": lambda t: t.to("meta"),
    "quantized": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "nested": lambda t: torch.nested.nested_tensor(list(t)),
    "empty": lambda t: t[:0],
    "scalar": lambda t: t.new_zeros(()),
    "without a dimension": lambda t: t[0],
    "one dimension more": lambda t: t[None],
    "huge and expanded": lambda t: t.new_zeros(()).expand(2**40, *t.shape[1:]),
    **{str(d): partial(lambda d, t: t.to(d), d) for d in (torch.float64, torch.float16, torch.int64, torch.bool)},
    **{str(d): partial(lambda d, t: t.to(d), d) for d in (torch.complex64, torch.float8_e5m2, torch.uint8)},
    **{f"dim {d} {c:+}": partial(resized, c, d) for d, c in itertools.product(range(5), (-1, 1, -99))},
    "NaN": lambda t: torch.full_like(t, math.nan),
    "infinite": lambda t: torch.full_like(t, math.inf),
    "negative": lambda t: torch.full_like(t, -5),
    "large": lambda t: torch.full_like(t, 2**40 if t.dtype is torch.int64 else 1000),
}
NUMBERS = (-1, 0, 1, 2**62, 2**63 - 1, -(2**63), 2**64, 1.5, True, math.nan, math.inf, -math.inf, "3", None, [1])
TEXTS = (
    "", "{", "null", "[]", "3", "{}", '{"shape": [1, 2]}', '{"alive": 5}', LATTICE.key, CASE.rule.key,
    Lattice((9, 9, 9), 4).key, Rule().key, LATTICE.key.replace("4", "-4", 1), LATTICE.key.replace("moore", "møøre"),
    LATTICE.key.replace("[2, 1, 3]", '[2, 1, "3"]'), LATTICE.key.replace("[2, 1, 3]", "[NaN, 1, 3]"),
    CASE.rule.key.replace("0.5", "NaN"), "native", "reference", "cuda", "triton", "auto", "x" * 10_000, "\0", 5, None,
)  # fmt: skip


# --------------------------------------------------------------------------------------------------------- the targets


class Target(NamedTuple):
    """Something to call, with arguments that are right."""

    name: str
    call: Callable[..., Any]
    arguments: dict[str, Any]
    right: Callable[..., Any]
    """What it must give, of plain tensors in float64 by name; None for what is anything."""


def _job_reference(given: dict[str, Any]) -> Any:
    lattice, rule = Lattice.from_key(given["lattice"]), Rule.from_key(given["rule"])
    schedule = Schedule(**{n: given[n] for n in Schedule._fields} | {"tolerance": float(given["tolerance"])})
    weights = StepWeights(*(given[n] for n in StepWeights._fields))
    call = Call(bind(lattice, rule), schedule, given["x"], weights, given["drive"], given["write_mask"])
    return reference.rollout(call), schedule


def _right_forward(given: dict[str, Any]) -> tuple:
    outputs, schedule = _job_reference(given)
    return outputs.state, outputs.trajectory, outputs.taken if schedule.tolerance >= 0 else None


def _right_checkpoints(given: dict[str, Any]) -> tuple:
    return *_right_forward(given), None  # a sample that stops leaves its later checkpoints unwritten


def _right_backward(given: dict[str, Any]) -> tuple | None:
    given, inputs = dict(given), {}
    if any(g is not None and not g.isfinite().all() for g in map(given.get, ("state_gradient", "trajectory_gradient"))):
        return None  # zero times infinity, and where a mask cuts it off
    for name in ROLLOUT_TENSORS[:-1]:
        if given[name] is not None:
            given[name] = inputs[name] = given[name].detach().clone().requires_grad_()
    outputs, schedule = _job_reference(given)
    if schedule.tolerance >= 0 and not torch.equal(outputs.taken, given["taken"]):
        return None  # of another call
    states = _job_reference(given | {"trajectory_every": schedule.checkpoint_every})[0].trajectory
    for index, state in enumerate(states[: schedule.checkpoints]):
        going = outputs.taken > (index + 1) * schedule.checkpoint_every  # of others nothing is kept
        if not torch.allclose(given["checkpoints"][index, going], state[going], rtol=1e-4, atol=1e-5):
            return None
    pairs = [(outputs.state, given["state_gradient"]), (outputs.trajectory, given["trajectory_gradient"])]
    pairs = [(o, g) for o, g in pairs if o is not None and g is not None and o.requires_grad]
    asked, cotangents = [o for o, _ in pairs], [g for _, g in pairs]
    found = torch.autograd.grad(asked, inputs.values(), cotangents, allow_unused=True, materialize_grads=True)
    named = dict(zip(inputs, found, strict=True))
    return tuple(named.get(name) for name in ROLLOUT_TENSORS[:-1])


def _right_rollout(given: dict[str, Any]) -> tuple:
    lattice, rule = (v if isinstance(v, (Lattice, Rule)) else None for v in (given["lattice"], given["rule"]))
    lattice = lattice or Lattice.from_key(given["lattice"])
    rule = rule or Rule.from_key(given["rule"])
    options = {name: given[name] for name in Options._fields if name != "backend"}
    parameters = RuleParameters(*(given[n] for n in RuleParameters._fields))
    result = rollout(given["x"], parameters, lattice, rule, **options, backend="reference")
    if isinstance(result, Tensor):
        return result, None, None
    return result.state, result.trajectory, result.steps if options["tolerance"] is not None else None


def _right_perceive(given: dict[str, Any]) -> Tensor:
    lattice = given["lattice"]
    return reference.perceive(
        given["x"], lattice if isinstance(lattice, Lattice) else Lattice.from_key(lattice), given["filters"]
    )


def _right_adjoint(given: dict[str, Any]) -> Tensor:
    lattice, percepts = Lattice.from_key(given["lattice"]), given["percepts"]
    x = torch.zeros(percepts.shape[0], *lattice.state_shape, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(reference.perceive(x, lattice, given["filters"]), x, percepts)[0]


def _right_filter_gradient(given: dict[str, Any]) -> Tensor:
    lattice, percepts = Lattice.from_key(given["lattice"]), given["percepts"]
    shape = percepts.shape[-1] // lattice.channels, len(lattice.offsets), lattice.channels
    filters = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(reference.perceive(given["x"], lattice, filters), filters, percepts)[0]


def _right_absorb(given: dict[str, Any]) -> Tensor:
    lattice = Lattice.from_key(given["lattice"])
    return given["x"] * reference.retention(lattice, device=torch.device("cpu"), dtype=torch.float64)


def _public_rollout(x, filters, *rest) -> Any:
    parameters, (lattice, rule, *options) = RuleParameters(filters, *rest[:5]), rest[5:]
    result = rollout(x, parameters, lattice, rule, **dict(zip(Options._fields, options, strict=True)))
    if isinstance(result, Tensor):
        return result, None, None
    return result.state, result.trajectory, None if options[-2] is None else result.steps


def targets() -> list[Target]:
    """Every operator of the namespace, and the two public functions."""
    inputs = draw_inputs(CASE, torch.float32)
    x, drive, mask = inputs.x.detach(), inputs.drive.detach(), inputs.write_mask
    parameters = {n: None if p is None else p.detach() for n, p in inputs.parameters._asdict().items()}
    weights = bind(LATTICE, CASE.rule).step_weights(RuleParameters(**parameters), x)._asdict()
    text = {"backend": "native", "lattice": LATTICE.key, "rule": CASE.rule.key}
    schedule = dict(
        zip(Schedule._fields, (STEPS, 2, CASE.seed, CASE.trajectory_every, CASE.tolerance, 0, 0), strict=True)
    )
    job = {"x": x, **weights, "drive": drive, "write_mask": mask, **text, **schedule}
    operators = torch.ops.cube_kernels
    state, trajectory, taken, checkpoints = operators.rollout_with_checkpoints(*job.values())
    generator = torch.Generator().manual_seed(0)
    gradients = {
        "state_gradient": torch.randn(state.shape, generator=generator),
        "trajectory_gradient": torch.randn(trajectory.shape, generator=generator),
    }
    options = {
        "steps": STEPS, "drive": drive, "write_mask": mask, "seed": CASE.seed, "checkpoint_every": None,
        "trajectory_every": CASE.trajectory_every, "tolerance": CASE.tolerance, "backend": "native",
        "first_step": 0, "first_sample": 0,
    }  # fmt: skip
    bank = torch.randn(2, len(LATTICE.offsets), 4, generator=generator)
    percepts = torch.randn(3, *LATTICE.shape, 8, generator=generator)
    named = {"backend": "native", "lattice": LATTICE.key}
    whole = {"x": x, **parameters, "lattice": LATTICE.key, "rule": CASE.rule.key, **options}
    arguments = {
        "rollout_forward": (job, _right_forward),
        "rollout_with_checkpoints": (job, _right_checkpoints),
        "rollout_backward": ({**gradients, "taken": taken, "checkpoints": checkpoints, **job}, _right_backward),
        "perceive_forward": ({"x": x, "filters": bank, **named}, _right_perceive),
        "perceive_adjoint": ({"percepts": percepts, "filters": bank, **named}, _right_adjoint),
        "filter_gradient": ({"x": x, "percepts": percepts, **named}, _right_filter_gradient),
        "absorb": ({"x": x, "lattice": LATTICE.key}, _right_absorb),
        "perceive": ({"x": x, "filters": bank, "lattice": LATTICE.key, "backend": "native"}, _right_perceive),
        "rollout": (whole, _right_rollout),
    }
    schemas = torch._C._jit_get_all_schemas()
    registered = {s.name.split("::")[1] for s in schemas if s.name.startswith("cube_kernels::")}
    assert registered == arguments.keys(), registered ^ arguments.keys()
    found = [Target(name, getattr(operators, name), *arguments[name]) for name in sorted(registered)]
    public = {"lattice": LATTICE, "rule": CASE.rule}
    found.append(Target("cube_kernels.rollout", _public_rollout, whole | public, _right_rollout))
    perception = {"x": x, "lattice": LATTICE, "filters": bank, "backend": "auto"}
    found.append(
        Target("cube_kernels.perceive", lambda *a: perceive(*a[:3], backend=a[3]), perception, _right_perceive)
    )
    return found


# ----------------------------------------------------------------------------------------------------------- the cases


def changes(value: Any) -> dict[str, Any]:
    """What may stand in an argument's place, by name: functions of a tensor, other values."""
    if isinstance(value, Tensor):
        return {**LAYOUTS, "None": None, "a number": 3, "text": "x", "a list": [[1.0]]}
    if value is None:
        return {"a tensor": torch.zeros(3), "-1": -1, "0": 0, "1.5": 1.5, "2**62": 2**62}
    if isinstance(value, (Lattice, Rule)):
        return {"None": None, "a number": 3, "its text": value.key, "a tensor": torch.zeros(3)}
    kinds = (*TEXTS, 3) if isinstance(value, str) else NUMBERS
    return {repr(k)[:40]: k for k in kinds} | {"a tensor": torch.zeros(3)}


def singles(target: Target) -> Iterator[dict[str, str]]:
    yield {}
    for name, value in target.arguments.items():
        for change in changes(value):
            yield {name: change}


def pairs(target: Target, generator: random.Random, count: int) -> Iterator[dict[str, str]]:
    for _ in range(count):
        names = generator.sample(list(target.arguments), min(2, len(target.arguments)))
        yield {n: generator.choice(list(changes(target.arguments[n]))) for n in names}


def left_out(target: Target, case: dict[str, str]) -> bool:
    """What ends nowhere: rollouts of so many steps that are right. And what torch itself does not survive: where it
    fails to copy a huge tensor for a fake one, its modes stay as they were within."""
    if {"fake", "huge and expanded"} <= set(case.values()):
        return True
    endless = {str(n) for n in (2**62, 2**63 - 1, 2**64) if len(case) > 1 or n < 2**63}
    return case.get("steps") in endless and "checkpoints" not in target.name


def modes() -> str:
    """What torch's dispatcher leaves out now."""
    return str(torch._C._dispatch_tls_local_exclude_set())


def plain(tensor: Any) -> Any:
    """Its numbers, in float64 if they are such; None of what has none."""
    if not isinstance(tensor, Tensor):
        return 1 if tensor is True else tensor
    if isinstance(tensor, Wrapper):
        tensor = tensor.held
    tensor = tensor.detach()
    tensor = tensor.as_subclass(Tensor) if tensor.layout is torch.strided else tensor.to_dense()
    tensor = torch.stack(list(tensor.reshape(-1))).view(tensor.shape) if tensor.numel() else tensor
    return tensor.double() if tensor.is_floating_point() else tensor


KEPT: deque[tuple[Tensor, Tensor]] = deque(maxlen=100)
"""Results of the last calls and what was in them: no later call may write there."""


def confirm(target: Target, arguments: dict[str, Any], result: Any) -> str:
    """How a call that returned ended.

    Raises:
        AssertionError: the reference says otherwise.
    """
    results = [r.to_dense() if isinstance(r, Tensor) and r.is_sparse else r for r in pytree.tree_leaves(result)]
    if any(isinstance(r, FakeTensor) or (isinstance(r, Tensor) and r.is_meta) for r in results):
        return "shape alone"
    KEPT.extend((r, r.clone()) for r in results if isinstance(r, Tensor))
    expected = target.right({name: plain(value) for name, value in arguments.items()})
    if expected is None:
        return "unconfirmed"
    expected = expected if isinstance(expected, tuple) else (expected,)
    for mine, right in zip(results, expected, strict=True):
        if right is None or mine is None:
            continue
        assert mine.shape == right.shape, f"shape {list(mine.shape)}, right is {list(right.shape)}"
        if not mine.dtype.is_floating_point:
            assert torch.equal(mine, right), "other integers"
            continue
        # What is infinite or no number in the reference may be cut off by a mask before it spreads in a kernel.
        finite = right.isfinite()
        off = error(plain(mine)[finite], right[finite]) if finite.any() else 0
        assert off < 1024 * torch.finfo(mine.dtype).eps, f"relative error {off:.2e}"
    return "right"


def given(target: Target, case: dict[str, str]) -> dict[str, Any] | None:
    """Its arguments in such a case; None if there is no such tensor."""
    arguments = dict(target.arguments)
    for name, change in case.items():
        made = changes(arguments[name])[change]
        try:
            arguments[name] = made(arguments[name].clone()) if callable(made) else made
        except Exception:  # torch's own refusal
            return None
    return arguments


def run(target: Target, case: dict[str, str]) -> str:
    """How a case ended.

    Raises:
        Exception: not well.
    """
    arguments = given(target, case)
    if arguments is None:
        return "no such tensor"
    try:
        result = target.call(*arguments.values())
    except REFUSALS as refusal:
        if isinstance(refusal, (json.JSONDecodeError, RecursionError)):
            raise AssertionError(f"a bare {type(refusal).__name__}") from refusal
        return f"refused: {type(refusal).__name__}"
    except AssertionError as refusal:
        if str(refusal).startswith(OF_TORCH):
            return "refused: by torch"
        raise
    return confirm(target, arguments, result)


def main(seed: int | None = None, count: int = 0) -> int:
    """Every single change; with a seed, so many pairs of them a target."""
    faulthandler.enable()
    warnings.filterwarnings("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    wrong, outcomes, before = 0, {}, modes()
    for target in targets():
        counted = outcomes[target.name] = Counter()
        cases = singles(target) if seed is None else pairs(target, random.Random(f"{seed} {target.name}"), count)
        for case in cases:
            if left_out(target, case):
                continue
            print(f"case {target.name} {case}", file=sys.stderr, flush=True)
            try:
                ended = run(target, case)
                assert modes() == before, "a mode of torch's dispatcher was left behind"
                changed = [r for r, was in KEPT if not torch.equal(r.nan_to_num(), was.nan_to_num())]
                assert not changed, "a result of an earlier call was written to"
            except Exception as failure:
                ended = "wrong"
                wrong += 1
                print(f"WRONG {target.name} {case}: {type(failure).__name__}: {failure}"[:600], flush=True)
            counted[ended] += 1
    for name, counted in outcomes.items():
        print(f"{name}: {counted.total()} cases; " + ", ".join(f"{n} {o}" for o, n in sorted(counted.items())))
    return wrong


if __name__ == "__main__":
    sys.exit(min(1, main(*map(int, sys.argv[1:]))))
