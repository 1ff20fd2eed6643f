"""``python -m benchmarks.gpu --out DIR``: everything that a machine with a GPU can tell, unattended, in eight minutes.

Facts of the device, the tests marked ``gpu``, compute-sanitizer where it is installed, and the backends beside torch:
times by CUDA events, in turns, and peak memory. Needs torch, triton and pytest, and downloads nothing. Everything goes
to DIR: ``report.txt``, ``results.json``, the tests' and the sanitizer's output. What did not fit the time is listed.

``--device cpu`` runs the same with the CPU's clock and the native backend, to try the command itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import DTYPES, Case
from benchmarks.forms import FORMS, Form
from benchmarks.verify import TOLERANCE
from cube_kernels import CubeLayer, RuleParameters, info, rollout
from cube_kernels.backends.contract import BackendError
from cube_kernels.call.dispatch import BACKENDS, choose

TOTAL_SECONDS = 450
TEST_SECONDS = 200
SANITIZER_SECONDS = 60
ROUNDS = 7
SAMPLE_SECONDS = 0.02

PUBLISHED = """Published for Bonsai's fused step (RTX 4090; C 16, hidden 128, fixed Sobel bank, walls), as times of
eager over theirs: 32^3 B8 T64 forward 3.5, training 1.37; 64^3 B4 T48 forward 4.1, training 1.66."""


@dataclass
class Row:
    """Milliseconds, peak bytes beyond what was allocated before, and why a program has none, by program."""

    case: Case
    precision: str
    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{replace(self.case, dtype=self.precision)}"


def rows() -> list[Row]:
    """Most telling first, for the time may end before the list. ``tf32`` is float32 with torch's switch on."""
    shapes = [
        (Case((32, 32, 32), 16, "moore", 4, 64, 8), ("fp32", "tf32", "bf16")),
        (Case((8, 8, 12), 32, "von_neumann", 1, 64, 256), ("fp32", "tf32", "bf16")),
        (Case((16, 16, 16), 16, "moore", 4, 64, 16), ("fp32", "bf16")),
        (Case((64, 64, 64), 16, "moore", 4, 48, 4), ("fp32", "bf16")),
        (Case((8, 8, 12), 8, "von_neumann", 1, 64, 1), ("fp32", "bf16")),
        (Case((8, 8, 12), 32, "von_neumann", 1, 8, 16), ("fp32", "bf16")),
    ]
    return [
        Row(replace(case, direction=direction, dtype="bf16" if precision == "bf16" else "fp32"), precision)
        for case, precisions in shapes
        for precision in precisions
        for direction in ("forward", "forward+backward")
    ]


@contextlib.contextmanager
def tf32(on: bool) -> Iterator[None]:
    """torch's own switch, for its matrix products and convolutions and for ours."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class Device:
    """Synchronization, clock and memory of where the programs run."""

    def __init__(self, name: str) -> None:
        self.name, self.is_gpu = name, name == "cuda"

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], Any], calls: int) -> float:
        self.wait()
        if not self.is_gpu:
            start = time.perf_counter()
            for _ in range(calls):
                call()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        self.wait()
        return begin.elapsed_time(end) / 1e3

    def peak_bytes(self, call: Callable[[], Any]) -> int:
        if not self.is_gpu:
            return 0
        self.wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        self.wait()
        return torch.cuda.max_memory_allocated() - before


Program = Callable[[], list[Tensor]]


def programs(case: Case, device: Device) -> dict[str, Callable[[], Program]]:
    """Makers of a call each, which returns the last state, or the gradients of ``y.square().mean()`` for the state
    and every parameter, in our layout."""
    problem = case.problem()
    x = problem.x.to(device.name)
    tensors = {name: tensor.to(device.name) for name, tensor in problem.tensors.items()}

    def called(
        run: Callable[[Tensor, RuleParameters], Tensor], start: Tensor, leave: Callable[[Tensor], Tensor]
    ) -> Program:
        if not case.backward:
            parameters = RuleParameters(**tensors)
            return torch.no_grad()(lambda: [leave(run(start, parameters))])
        first = start.detach().requires_grad_()
        trained = RuleParameters(**{n: t.clone().requires_grad_() for n, t in tensors.items()})
        wanted = [first, *(p for p in trained if p is not None)]

        def both() -> list[Tensor]:
            state, *rest = torch.autograd.grad(run(first, trained).square().mean(), wanted)
            return [leave(state), *rest]

        return both

    def ours(backend: str) -> Program:
        choose(backend, problem.lattice, problem.rule, x.dtype, x.device)  # raises, with the reason
        layer = CubeLayer(problem.lattice, problem.rule, problem.steps, backend=backend)

        def run(state: Tensor, parameters: RuleParameters) -> Tensor:
            return rollout(state, parameters, layer.lattice, layer.rule, steps=layer.steps, backend=backend)

        return called(run, x, lambda y: y)

    def form(made: Form, compiled: bool) -> Program:
        step = torch.compile(made.step, fullgraph=True, dynamic=False) if compiled else made.step
        return called(lambda s, p: made.rollout(s, problem, p, step), made.enter(x), made.leave)

    mine = [name for name in BACKENDS if name != "reference"]
    return {
        **{name: lambda name=name: ours(name) for name in mine},  # type: ignore[misc]
        **{f"eager {n}": lambda f=f: form(f, False) for n, f in FORMS.items()},  # type: ignore[misc]
        "compiled shifts": lambda: form(FORMS["shifts"], True),
    }


def truth(case: Case, device: Device) -> list[Tensor]:
    """The reference's results in float32 without TF32, a few samples at a time."""
    problem = case.problem()
    parameters = RuleParameters(
        **{n: p.float().to(device.name).requires_grad_(case.backward) for n, p in problem.tensors.items()}
    )
    weights = [p for p in parameters if p is not None]
    states, sums = [], [torch.zeros_like(p) for p in weights]
    for part in problem.x.float().to(device.name).split(max(1, 2**17 // case.lattice.cells)):
        part.requires_grad_(case.backward)
        y = rollout(part, parameters, problem.lattice, problem.rule, steps=problem.steps, backend="reference")
        if not case.backward:
            states.append(y)
            continue
        state, *gradients = torch.autograd.grad(y.square().sum() / problem.x.numel(), [part, *weights])
        states.append(state)
        for total, gradient in zip(sums, gradients, strict=True):
            total += gradient
    return [torch.cat(states), *(sums if case.backward else [])]


def error(results: list[Tensor], right: list[Tensor]) -> float:
    """The largest over the tensors, of each's norm."""
    pairs = zip(results, right, strict=True)
    return max(((a.double() - b.double()).norm() / b.double().norm()).item() for a, b in pairs)


def measure(row: Row, device: Device) -> None:
    """Fills the row with every program that runs and computes our numbers."""
    with tf32(False):
        right = truth(row.case, device)
    allowed = TOLERANCE["bf16" if row.precision in ("bf16", "tf32") else "fp32"]
    running: dict[str, Program] = {}
    for name, make in programs(row.case, device).items():
        try:
            call = make()
            off = error(call(), right)
            if off > allowed:
                row.refused[name] = f"REFUSED, other numbers: off by {off:.1e} of the norm, allowed {allowed:.0e}"
                continue
            row.peak_bytes[name] = device.peak_bytes(call)
            running[name] = call
        except (BackendError, torch.OutOfMemoryError) as reason:
            row.refused[name] = str(reason).splitlines()[0]
    calls = {name: max(1, round(SAMPLE_SECONDS / device.seconds(call, 1))) for name, call in running.items()}
    for _ in range(ROUNDS):
        for name, call in running.items():
            row.milliseconds.setdefault(name, []).append(1e3 * device.seconds(call, calls[name]) / calls[name])


def table(row: Row) -> str:
    """The fastest first; a ratio is a program's time over the best of ours."""
    medians = {name: statistics.median(samples) for name, samples in row.milliseconds.items()}
    ours = min((ms for name, ms in medians.items() if name in BACKENDS), default=None)
    lines = [f"\n{row}", f"  {'':<36}{'median ms':>10}{'min-max':>20}{'x ours':>8}{'TFLOP/s':>9}{'peak MB':>9}"]
    for name, median in sorted(medians.items(), key=lambda item: item[1]):
        samples = row.milliseconds[name]
        ratio = "-" if ours is None else f"{median / ours:.2f}"
        spread = f"{min(samples):.3f}-{max(samples):.3f}"
        rate = row.case.flops / median / 1e9
        lines.append(f"  {name:<36}{median:>10.3f}{spread:>20}{ratio:>8}{rate:>9.2f}{row.peak_bytes[name] / 1e6:>9.1f}")
    return "\n".join([*lines, *(f"  {name:<36}{reason}" for name, reason in row.refused.items())])


def facts(device: Device) -> dict[str, Any]:
    found: dict[str, Any] = {"torch": torch.__version__, "cuda of torch": torch.version.cuda, "info": info.report()}
    if device.is_gpu:
        properties = torch.cuda.get_device_properties(0)
        names = ("name", "major", "minor", "multi_processor_count", "total_memory", "L2_cache_size")
        found |= {name: getattr(properties, name) for name in names if hasattr(properties, name)}
        for precision, dtype in DTYPES.items():
            a = torch.randn(8192, 8192, device="cuda", dtype=dtype)
            best = min(device.seconds(lambda a=a: a @ a, 1) for _ in range(8))
            found[f"{precision} matmul TFLOP/s"] = 2 * 8192**3 / best / 1e12
        source = torch.empty(2**28, device="cuda")
        target = torch.empty_like(source)
        found["copy GB/s"] = (
            2 * source.nbytes / min(device.seconds(lambda: target.copy_(source), 1) for _ in range(8)) / 1e9
        )
    return found


def run_logged(command: list[str], log: Path, seconds: float) -> str:
    """Runs a command for no longer than that; the last line of its output, which goes to ``log``."""
    with log.open("w") as out:
        try:
            status = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, timeout=seconds).returncode
        except subprocess.TimeoutExpired:
            status = -1
    lines = log.read_text().strip().splitlines() or [""]
    return ("stopped for time: " if status == -1 else f"exit status {status}: ") + lines[-1]


def main(arguments: list[str] | None = None, chosen: Callable[[], list[Row]] = rows) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that is found")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args(arguments)
    device = Device(options.device)
    if device.is_gpu and not torch.cuda.is_available():
        parser.error("torch finds no GPU here; --device cpu tries the command without one")
    options.out.mkdir(parents=True, exist_ok=True)
    start, report = time.monotonic(), (options.out / "report.txt").open("w")

    def tell(text: str) -> None:
        print(text, flush=True)
        print(text, file=report, flush=True)

    result: dict[str, Any] = {"facts": facts(device), "rows": [], "not run": []}
    tell("\n".join(f"{key}: {value}" for key, value in result["facts"].items()))
    if device.is_gpu:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "gpu and not sweep", "tests/gpu"]
        result["tests"] = run_logged(command, options.out / "tests.txt", TEST_SECONDS)
        tell(f"gpu tests: {result['tests']}")
        sanitizer = shutil.which("compute-sanitizer")
        result["sanitizer"] = "not installed"
        if sanitizer:
            command = [sanitizer, "--error-exitcode=9", *command, "-k", "sanitized"]
            result["sanitizer"] = run_logged(command, options.out / "sanitizer.txt", SANITIZER_SECONDS)
        tell(f"compute-sanitizer: {result['sanitizer']}")
    tell(PUBLISHED)
    for row in chosen():
        if time.monotonic() - start > TOTAL_SECONDS:
            result["not run"].append(str(row))
            continue
        with tf32(row.precision == "tf32"):
            measure(row, device)
        tell(table(row))
        result["rows"].append({"name": str(row), **asdict(row)})
        (options.out / "results.json").write_text(json.dumps(result, indent=1, default=str) + "\n")
    tell(f"\nnot run for want of time: {', '.join(result['not run']) or 'none'}")
    tell(f"{time.monotonic() - start:.0f} s")
    (options.out / "results.json").write_text(json.dumps(result, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
