"""The notation in which this folder's modules say which instructions they execute."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..errors import UnsupportedError
from ..parse import Instruction

if TYPE_CHECKING:
    from ..machine import Machine

Step = Callable[["Machine"], None]


@dataclass(frozen=True)
class Work:
    """A step that computes in floating point, and how many operations that is for each thread."""

    step: Step
    flops: int


Decoder = Callable[[Instruction, Any], "Step | Work"]
DECODERS: dict[str, list[tuple[re.Pattern[str], Decoder]]] = {}


def form(*notations: str) -> Callable[[Decoder], Decoder]:
    """Registers a decoder for instructions like ``"ld .volatile? .space=global|shared .vec=v2|v4? .type=b32|b64"``.

    After the opcode stand the modifiers in order: alternatives divided by ``|``, with ``?`` if it may be absent. The
    ones with a name come to the decoder as its second argument's attributes (``None`` where absent); the ones without
    change nothing that is modelled.
    """

    def register(decoder: Decoder) -> Decoder:
        for notation in notations:
            opcode, *modifiers = notation.split()
            DECODERS.setdefault(opcode, []).append((re.compile("".join(map(_pattern, modifiers))), decoder))
        return decoder

    return register


def _pattern(modifier: str) -> str:
    name, equals, alternatives = modifier.removeprefix(".").rpartition("=")
    optional = alternatives.endswith("?")
    choice = "|".join(re.escape(alternative) for alternative in alternatives.removesuffix("?").split("|"))
    group = f"(?P<{name}>{choice})" if equals else f"(?:{choice})"
    return rf"(?:\.{group}){'?' if optional else ''}"


def decode(instruction: Instruction) -> Step | Work:
    """Raises :class:`UnsupportedError` if no form fits."""
    for pattern, decoder in DECODERS.get(instruction.opcode, ()):
        if match := pattern.fullmatch(instruction.modifiers):
            return decoder(instruction, SimpleNamespace(**match.groupdict()))
    raise UnsupportedError(f"instruction {instruction.opcode}{instruction.modifiers}")
