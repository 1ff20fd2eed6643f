"""csrc/bind.cpp: plans from plain numbers, calls on tensors that :mod:`cube_kernels.call.door` has checked."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

compiler: str
names: dict[str, list[str]]
"""Of each option that takes a name, those the kernels know, in the order of their numbers."""
storages: list[str]

def supported_isas() -> list[str]: ...
def use_openmp(parallel: int) -> None: ...

class TensorReader:
    def __init__(self, kinds: Sequence[type]) -> None: ...
    def look(self, tensors: tuple[Any, ...], shapes: tuple[Any, ...]) -> int: ...

class Schedule:
    def __init__(
        self,
        storage: str,
        batch: int,
        shared_drive: bool,
        shared_write_mask: bool,
        steps: int,
        checkpoint_every: int,
        seed: int,
        trajectory_every: int,
        tolerance: float,
        first_step: int,
        first_sample: int,
        threads: int,
        patience: int,
    ) -> None: ...

class Plan:
    def __init__(
        self,
        *,
        shape: Sequence[int],
        channels: int,
        offsets: Sequence[Sequence[int]],
        axis_targets: Sequence[Sequence[int]],
        perception: str,
        filters: int,
    ) -> None: ...
    def set_rule(
        self,
        *,
        own_state: bool,
        drive: int,
        inputs: int,
        hidden: int,
        activation: str,
        squash: str,
        update: str,
        step_size: float,
    ) -> None: ...
    def set_fire(self, *, threshold: int, scale: float) -> None: ...
    def set_clamp(self, low: float, high: float) -> None: ...
    def set_retention(self, axes: Sequence[Sequence[float]]) -> None: ...
    def set_window(
        self, *, places: Sequence[Sequence[int]], lifetimes: Sequence[Sequence[int]], whole: Sequence[int]
    ) -> None: ...
    def set_immutable(self, channels: Sequence[int]) -> None: ...
    def set_alive(
        self,
        *,
        channel: int,
        threshold: float,
        before: bool,
        after: bool,
        dead_value: float,
        offsets: Sequence[Sequence[int]],
    ) -> None: ...
    def isa(self, isa: str, item_size: int) -> str: ...
    def forward(
        self,
        isa: str,
        schedule: Schedule,
        state: Tensor,
        weights: Sequence[Tensor | None],
        drive: Tensor | None,
        write_mask: Tensor | None,
        result: Tensor,
        trajectory: Tensor | None,
        taken: Tensor | None,
        checkpoints: Tensor | None,
    ) -> None: ...
    def backward(
        self,
        gradient_storage: str,
        isa: str,
        schedule: Schedule,
        state: Tensor,
        weights: Sequence[Tensor | None],
        drive: Tensor | None,
        write_mask: Tensor | None,
        checkpoints: Tensor | None,
        taken: Tensor | None,
        result_gradient: Tensor,
        trajectory_gradient: Tensor | None,
        state_gradient: Tensor,
        weight_gradients: Sequence[Tensor | None],
        drive_gradient: Tensor | None,
    ) -> None: ...
    def perception(
        self,
        which: str,
        isa: str,
        storage: str,
        batch: int,
        threads: int,
        patience: int,
        bank: Tensor | None,
        state: Tensor | None,
        percepts: Tensor | None,
        result: Tensor,
    ) -> None: ...
