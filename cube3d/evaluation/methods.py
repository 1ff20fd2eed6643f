"""What an evaluation measures: anything that says a vector for each question."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cube3d.vectors import Part

ROUNDS = 3
"""How often each method's speed is measured; the median counts."""

SECONDS = 0.5
"""About how long a measurement of a speed takes."""


@dataclass(frozen=True)
class Method:
    """A predictor of answers.

    Attributes:
        predict: predicted answers ``[N, dim]`` for the questions of a part.
        parameters: numbers that were fitted to the training part or the texts.
        size: bytes that must be there when a question is asked; None where no question can be asked.
        read: texts to vectors as when a question is asked, nothing cached; None where no question can be asked.
        bank: the part with its answers as the method itself sees them, for one that reads both sides; None: they are
            the teachers'.
    """

    predict: Callable[[Part], Tensor]
    parameters: int
    size: int | None = None
    read: Callable[[Sequence[str]], Tensor] | None = None
    bank: Callable[[Part], Part] | None = None


def measure_speeds(methods: Mapping[str, Method], questions: Sequence[str]) -> dict[str, float]:
    """Questions a second on one thread, of each method that can be asked: the median of some rounds, in which all of
    them take turns, each with as many questions as take it about half a second."""
    readers = {name: method.read for name, method in methods.items() if method.read is not None}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        batches = {name: _repeated(questions, _fitting(read, questions)) for name, read in readers.items()}
        found: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(ROUNDS):
            for name, read in readers.items():
                found[name].append(len(batches[name]) / _seconds(read, batches[name]))
    finally:
        torch.set_num_threads(threads)
    return {name: statistics.median(speeds) for name, speeds in found.items()}


def _fitting(read: Callable[[Sequence[str]], Tensor], questions: Sequence[str]) -> int:
    """How many questions take about half a second. The first call loads what must be loaded."""
    few = _repeated(questions, 16)
    read(few)
    return max(16, round(len(few) * SECONDS / _seconds(read, few)))


def _seconds(read: Callable[[Sequence[str]], Tensor], texts: Sequence[str]) -> float:
    start = time.perf_counter()
    read(texts)
    return time.perf_counter() - start


def _repeated(questions: Sequence[str], count: int) -> list[str]:
    return [questions[i % len(questions)] for i in range(count)]
