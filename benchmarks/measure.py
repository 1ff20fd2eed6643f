"""How a row is timed, and what the machine can do at best."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from benchmarks.cases import Case
from benchmarks.peers import OURS, peers_of
from benchmarks.runners import RefusalError, Runner, peak_bytes, start
from benchmarks.verify import DisagreementError, check

SAMPLED_SECONDS = 1.5  # of each peer and row, about
SAMPLE_SECONDS = 0.1  # short calls are averaged over this long
ROUNDS = (5, 15)
SETTLE_SECONDS = 0.02

TURNS = (
    f"A B C, A B C; {1e3 * SETTLE_SECONDS:.0f} ms of rest before each, in which the OpenMP workers of the peer "
    f"before stop spinning; calls shorter than {1e3 * SAMPLE_SECONDS:.0f} ms run once untimed, then are averaged over "
    "that long. No environment variable is set for any peer."
)


@dataclass
class Row:
    """``milliseconds``: the samples of each peer that ran; ``refused``: why the others did not."""

    case: Case
    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)


def interleaved(runners: dict[str, Runner]) -> dict[str, list[float]]:
    """Milliseconds a call of each runner, sampled in turns, so that a change of the machine's speed meets all."""
    estimates = {name: min(runner.seconds(1) for _ in range(2)) for name, runner in runners.items()}
    calls = {name: max(1, round(SAMPLE_SECONDS / seconds)) for name, seconds in estimates.items()}
    slowest = max(estimates.values(), default=1.0)
    rounds = min(max(round(SAMPLED_SECONDS / max(slowest, SAMPLE_SECONDS)), ROUNDS[0]), ROUNDS[1])
    samples: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, runner in runners.items():
            time.sleep(SETTLE_SECONDS)
            if calls[name] > 1:
                runner.seconds(1)
            samples[name].append(1e3 * runner.seconds(calls[name]) / calls[name])
    return samples


def measure(case: Case, memory: bool) -> Row:
    """Checks every peer's numbers, then times those that agree.

    Raises:
        DisagreementError: ours are not the reference's. Then no time of the row means anything.
    """
    row, runners = Row(case), {}
    with contextlib.ExitStack() as stack:
        for name in peers_of(case):
            try:
                runner = start(name, case)
                stack.callback(runner.close)
                check(case, name, runner.results)
                runners[name] = runner
            except RefusalError as refusal:
                row.refused[name] = str(refusal)
            except DisagreementError as disagreement:
                if name == OURS:
                    raise
                row.refused[name] = f"REFUSED, other numbers: {disagreement}"
        row.milliseconds = interleaved(runners)
    if memory:
        for name in row.milliseconds:
            with contextlib.suppress(RefusalError):
                row.peak_bytes[name] = peak_bytes(name, case)
    return row


def _best_seconds(call: Callable[[], object]) -> float:
    def once() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return min(once() for _ in range(12))


def ceilings() -> dict[str, float]:
    """What torch's own matrix product and a copy beyond the caches reach here: best of 12."""
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = torch.randn(2, 2000, 2000).to(dtype)
        found[f"{name} matmul GFLOP/s"] = 2 * 2000**3 / _best_seconds(lambda a=a, b=b: a @ b) / 1e9
    source = torch.ones(2**26)
    target = torch.empty_like(source)
    found["copy GB/s"] = 2 * source.nbytes / _best_seconds(lambda: target.copy_(source)) / 1e9
    return found
