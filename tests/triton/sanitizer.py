"""A sanitizer for Triton's interpreter, which itself reads and writes wherever a pointer points.

Within :func:`sanitized`, each access of a kernel is checked: that it lies within a tensor that the kernel was given, is
aligned, and that no two lanes store to one address; each launch, that no program touches what another one writes; and
every 32-bit sum, difference and product for overflow, every ``tl.device_assert`` for what it asserts. The first fault
raises :class:`FaultError`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from triton.runtime import interpreter
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder


class FaultError(AssertionError):
    """What a kernel must not do."""


class Launch:
    """The accesses of one launch."""

    def __init__(self, kernel: str, tensors: list[torch.Tensor]) -> None:
        self.kernel = kernel
        spans = sorted((t.data_ptr(), t.data_ptr() + t.numel() * t.element_size()) for t in tensors if t.numel())
        self.begins = np.array([begin for begin, _ in spans], dtype=np.int64)
        self.ends = np.array([end for _, end in spans], dtype=np.int64)
        self.accesses: dict[str, list[tuple[int, np.ndarray, int]]] = {"load": [], "store": []}

    def access(self, kind: str, pointers: Any, mask: Any, program: tuple[int, int, int]) -> None:
        size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        addresses, there = np.broadcast_arrays(pointers.data, mask.data)
        addresses = addresses[there.astype(bool)].astype(np.int64)
        where = f"{self.kernel}, program {program}: {kind} of {size} bytes"
        tensor = np.searchsorted(self.begins, addresses, side="right") - 1
        if ((tensor < 0) | (addresses + size > self.ends[tensor])).any():
            raise FaultError(f"{where} out of bounds")
        if (addresses % size).any():
            raise FaultError(f"{where}, misaligned")
        distinct = np.unique(addresses)
        if kind == "store" and len(distinct) < len(addresses):
            raise FaultError(f"{where}, two lanes to one address")
        number = hash(program)
        self.accesses[kind].append((number, distinct, size))

    def check_races(self) -> None:
        """No byte that one program writes may be read or written by another."""
        loaded, stored = self._touched("load"), self._touched("store")
        writers = stored[:, np.unique(stored[0], return_index=True)[1]]
        for kind, touched in (("stores to", stored), ("loads", loaded)):
            place = np.searchsorted(writers[0], touched[0])
            place = np.minimum(place, max(len(writers[0]) - 1, 0))
            if len(writers[0]) and ((writers[0][place] == touched[0]) & (writers[1][place] != touched[1])).any():
                raise FaultError(f"{self.kernel}: a program {kind} what another program stores to")

    def _touched(self, kind: str) -> np.ndarray:
        """``[2, pairs]``: the bytes and the programs that touch them, each pair once."""
        pairs = [
            np.stack([(distinct[:, None] + np.arange(size)).ravel(), np.full(len(distinct) * size, number)])
            for number, distinct, size in self.accesses[kind]
        ]
        return np.unique(np.concatenate(pairs, axis=1), axis=1) if pairs else np.zeros((2, 0), dtype=np.int64)


@contextlib.contextmanager
def sanitized() -> Iterator[None]:
    """Checks every kernel that is launched inside."""
    builder, launches = interpreter.interpreter_builder, []
    load, store, run = (
        InterpreterBuilder.create_masked_load,
        InterpreterBuilder.create_masked_store,
        GridExecutor.__call__,
    )

    def checked_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        launches[-1].access("load", pointers, mask, tuple(self.grid_idx))
        return load(self, pointers, mask, *rest)

    def checked_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        launches[-1].access("store", pointers, mask, tuple(self.grid_idx))
        return store(self, pointers, value, mask, *rest)

    def checked_run(self: Any, *arguments: Any, **constants: Any) -> None:
        tensors = [a for a in (*arguments, *constants.values()) if isinstance(a, torch.Tensor)]
        launches.append(Launch(self.fn.__name__, tensors))
        run(self, *arguments, **constants)
        launches.pop().check_races()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpreterBuilder, "create_masked_load", checked_load)
        patch.setattr(InterpreterBuilder, "create_masked_store", checked_store)
        patch.setattr(GridExecutor, "__call__", checked_run)
        patch.setattr(builder, "options", dataclasses.replace(builder.options, debug=True, sanitize_overflow=True))
        yield
