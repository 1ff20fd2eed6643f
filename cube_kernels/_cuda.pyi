"""csrc/cuda/bind.cpp: plans from plain numbers, calls on tensors of the execution's device that
:mod:`cube_kernels.call.door` has checked. ``tables`` is a copy of a plan's bytes there."""

from collections.abc import Sequence

from torch import Tensor

build: str
names: dict[str, list[str]]
storages: list[str]

def device_problem(device: int) -> str: ...
def device_report() -> str: ...
def limits(device: int) -> Limits: ...

class Limits:
    shared_bytes: int
    blocks: int

class Execution:
    def __init__(self, device: int, stream: int, tf32: bool, scratch: Tensor | None) -> None: ...

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
    def tables(self) -> bytes: ...
    def least_shared_bytes(self, storage: str, blocks: int) -> int: ...
    def forward_scratch_bytes(self, schedule: Schedule, limits: Limits) -> int: ...
    def backward_scratch_bytes(self, schedule: Schedule, limits: Limits) -> int: ...
    def bank_gradient_scratch_bytes(self, batch: int) -> int: ...
    def forward(
        self,
        execution: Execution,
        tables: Tensor,
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
        execution: Execution,
        tables: Tensor,
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
    def perceive(
        self,
        execution: Execution,
        tables: Tensor,
        storage: str,
        batch: int,
        bank: Tensor | None,
        state: Tensor | None,
        percepts: Tensor | None,
        result: Tensor,
    ) -> None: ...
    def perceive_adjoint(
        self,
        execution: Execution,
        tables: Tensor,
        storage: str,
        batch: int,
        bank: Tensor | None,
        state: Tensor | None,
        percepts: Tensor | None,
        result: Tensor,
    ) -> None: ...
    def bank_gradient(
        self,
        execution: Execution,
        tables: Tensor,
        storage: str,
        batch: int,
        bank: Tensor | None,
        state: Tensor | None,
        percepts: Tensor | None,
        result: Tensor,
    ) -> None: ...
