"""Two repairs of Triton's interpreter, for as long as a test runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction, InterpreterBuilder, TensorHandle


@contextlib.contextmanager
def repaired() -> Iterator[None]:
    """Rounds to bfloat16 as every GPU does, to nearest even, where the interpreter cuts the bits off; and does not make
    Triton's language interpreted anew at every call of a device function, though the kernel's launch has done so, which
    takes half of the time."""
    cast, call = InterpreterBuilder.cast_impl, InterpretedFunction.__call__

    def rounding_cast(self: Any, source: Any, type_: Any) -> Any:
        if source.dtype.scalar == tl.float32 and type_.scalar == tl.bfloat16:
            return TensorHandle(nearest_bfloat16(source.data), tl.bfloat16)
        return cast(self, source, type_)

    def short_call(self: Any, *arguments: Any, **constants: Any) -> Any:
        if self.fn.__module__.startswith("triton."):
            return call(self, *arguments, **constants)
        return self.rewrite()(*arguments, **constants)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpreterBuilder, "cast_impl", rounding_cast)
        patch.setattr(InterpretedFunction, "__call__", short_call)
        yield


def nearest_bfloat16(numbers: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16, the even one of two."""
    bits = np.ascontiguousarray(numbers, dtype=np.float32).view(np.uint32).reshape(np.shape(numbers)).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(numbers), (bits >> 16) | 0x40, rounded).astype(np.uint16)
