"""PTX's types as numpy sees them: how the bits of a register become numbers, and numbers bits again.

Registers hold bits: unsigned arrays of their width. Integers are views of them. Floating-point formats are decoded to
an array that numpy computes with, one more dimension for the packed ones, and encoded to the nearest, ties to even.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

RAW = {1: np.dtype(bool), 8: np.dtype("u1"), 16: np.dtype("u2"), 32: np.dtype("u4"), 64: np.dtype("u8")}


class Format(NamedTuple):
    bits: int
    decode: Callable[[Array], Array]
    encode: Callable[[Array], Array]
    lanes: int = 1  # numbers in a register


def integer(name: str) -> np.dtype[Any]:
    """The dtype of ``s32``, ``u8``, ``b64`` and the like."""
    return np.dtype(f"{'i' if name[0] == 's' else 'u'}{int(name[1:]) // 8}")


def contiguous(values: Array, dtype: Any) -> Array:
    return np.ascontiguousarray(values, dtype)


def decode_bf16(raw: Array) -> Array:
    return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)


def encode_bf16(values: Array) -> Array:
    bits = contiguous(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint32(0x7FFF), rounded).astype(np.uint16)


def _pair(element: Format) -> Format:
    """Two numbers in one register, the first in the low half."""
    half, whole = RAW[element.bits], RAW[2 * element.bits]

    def decode(raw: Array) -> Array:
        return element.decode(raw.view(half).reshape(-1, 2))

    def encode(values: Array) -> Array:
        return np.ascontiguousarray(element.encode(values)).view(whole)[:, 0]

    return Format(whole.itemsize * 8, decode, encode, 2)


FORMATS = {
    "f32": Format(32, lambda raw: raw.view(np.float32), lambda x: contiguous(x, np.float32).view(np.uint32)),
    "f64": Format(64, lambda raw: raw.view(np.float64), lambda x: contiguous(x, np.float64).view(np.uint64)),
    "f16": Format(
        16,
        lambda raw: raw.view(np.float16).astype(np.float32),
        lambda x: contiguous(x, np.float16).view(np.uint16),
    ),
    "bf16": Format(16, decode_bf16, encode_bf16),
}
FORMATS |= {f"{name}x2": _pair(FORMATS[name]) for name in ("f32", "f16", "bf16")}


def flush(values: Array) -> Array:
    """``.ftz``: subnormal numbers become zeros of their sign."""
    return np.where(np.abs(values) < np.finfo(np.float32).tiny, np.copysign(values.dtype.type(0), values), values)
