"""PTX text to kernels: instructions whose operands are resolved to registers, symbols and labels."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from .errors import UnsupportedError


class Register(NamedTuple):
    slot: int
    bits: int  # 1 for a predicate
    name: str


class Negated(NamedTuple):
    """``!p`` of a predicate."""

    register: Register


class Immediate(NamedTuple):
    value: int
    bits: int | None  # the width of a floating-point literal, whose bits `value` holds; None: an integer fits any
    name: str


class Special(NamedTuple):
    """A read-only register such as ``%tid.x``."""

    name: str


class Symbol(NamedTuple):
    name: str
    space: str
    offset: int


class Address(NamedTuple):
    """``[base + offset]``."""

    base: Register | Symbol | Immediate
    offset: int


class Vector(NamedTuple):
    elements: tuple[Operand, ...]


class Pair(NamedTuple):
    """``a|b``: two destinations."""

    first: Operand
    second: Operand


class Sink(NamedTuple):
    """``_``: a destination that nobody reads."""


class Label(NamedTuple):
    name: str
    target: int  # index of an instruction


Operand: TypeAlias = "Register | Negated | Immediate | Special | Symbol | Address | Vector | Pair | Sink | Label"


@dataclass(frozen=True)
class Instruction:
    opcode: str  # "ld"
    modifiers: str  # ".global.v4.b32"
    operands: tuple[Operand, ...]
    guard: Register | Negated | None
    text: str
    line: int  # of the PTX
    source: str  # file:line that it was compiled from, where the PTX says so

    def __str__(self) -> str:
        return f"PTX line {self.line}{f' ({self.source})' if self.source else ''}: {self.text}"


class Parameter(NamedTuple):
    name: str
    offset: int
    bytes: int


@dataclass
class Kernel:
    name: str
    target: str
    parameters: list[Parameter]
    instructions: list[Instruction] = field(default_factory=list)
    registers: list[Register] = field(default_factory=list)
    shared_bytes: int = 0  # static ones; dynamic ones follow them
    local_bytes: int = 0
    constants: bytes = b""  # the module's initialized .global and .const arrays, at the offsets of their symbols


INTEGER = re.compile(r"(-?)(0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)U?")
IDENTIFIER = r"[a-zA-Z_$%][\w$]*"
SPECIAL = re.compile(
    r"%(tid|ntid|ctaid|nctaid|clusterid|nclusterid|cluster_ctaid|cluster_nctaid)\.[xyz]"
    r"|%(laneid|warpid|nwarpid|lanemask_(eq|le|lt|ge|gt)|cluster_ctarank|cluster_nctarank)"
)
ENTRY = re.compile(rf"\.entry\s+({IDENTIFIER})\s*(?:\((.*?)\))?([^{{]*)\{{", re.S)
ARRAY = re.compile(
    rf"\.(global|const|shared|local)\s+(?:\.align\s+(\d+)\s+)?\.([busf])(\d+)\s+({IDENTIFIER})"
    rf"(?:\[(\d*)\])?(?:\s*=\s*(\{{[^}}]*\}}|[^;]+))?\s*;"
)
TOKEN = re.compile(rf"\s*(?:(?P<label>{IDENTIFIER})\s*:(?!:)|(?P<brace>[{{}}])|(?P<statement>[^;{{}}][^;]*);)")
STATEMENT = re.compile(rf"(?:@(!?)({IDENTIFIER})\s+)?([a-z]\w*)((?:\.[\w:]+)*)\s*(.*)", re.S)
ADDRESS = re.compile(r"\[\s*([^\s+-]+)\s*(?:([+-])\s*(-?\w+))?\s*\]")
WIDTHS = {
    "pred": 1,
    **{f"{kind}{bits}": bits for kind in "busf" for bits in (8, 16, 32, 64) if kind + str(bits) != "f8"},
}
WIDTHS |= {"f16x2": 32, "bf16": 16, "bf16x2": 32}


def parse(text: str, name: str | None = None) -> Kernel:
    """The kernel of that name, or the only one. Raises :class:`UnsupportedError` for what it cannot read."""
    text = _without_comments(text)
    entries = {match[1]: match for match in ENTRY.finditer(text)}
    if name is None and len(entries) == 1:
        (name,) = entries
    if name is None or name not in entries:
        raise ValueError(f"no kernel {name!r}; the module has {', '.join(entries) or 'none'}")
    match = entries[name]
    target = re.search(r"\.target\s+(\w+)", text)
    kernel = Kernel(name, target[1] if target else "", _parameters(match[2] or ""))
    outside = re.sub(r"\.(?:entry|func)\b[^{;]*\{.*?\n\}", "", text, flags=re.S)
    _Body(kernel, text, match.end(), ARRAY.finditer(outside)).read()
    return kernel


def _without_comments(text: str) -> str:
    """The same text on the same lines, less comments and debugging sections; every statement ends in a semicolon."""

    def blank(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n")

    text = re.sub(r"/\*.*?\*/|//[^\n]*", blank, text, flags=re.S)
    text = re.sub(r"\.section\s+[\w.]+\s*\{[^}]*\}", blank, text)
    return re.sub(r"^(\s*\.(?:loc|file)\b[^\n;]*)$", r"\1;", text, flags=re.M)


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _parameters(text: str) -> list[Parameter]:
    parameters, offset = [], 0
    for declaration in filter(None, (part.strip() for part in text.split(","))):
        shape = re.fullmatch(
            rf"\.param\s+(?:\.align\s+(\d+)\s+)?\.([busf]\d+)(?:\s+\.ptr\b.*?)?\s+({IDENTIFIER})(?:\[(\d+)\])?",
            declaration,
            re.S,
        )
        if not shape:
            raise UnsupportedError(f"parameter {declaration!r}")
        width = WIDTHS[shape[2]] // 8
        offset = _aligned(offset, int(shape[1] or width))
        parameters.append(Parameter(shape[3], offset, width * int(shape[4] or 1)))
        offset += parameters[-1].bytes
    return parameters


@dataclass
class _Scope:
    """Names between two braces."""

    outer: _Scope | None
    registers: dict[str, Register] = field(default_factory=dict)
    families: dict[str, int] = field(default_factory=dict)  # prefix -> bits, of `.reg .b32 %r<9>`
    labels: dict[str, int] = field(default_factory=dict)


class _Body:
    """Reads one kernel's body, once."""

    def __init__(self, kernel: Kernel, text: str, start: int, module: object):
        self.kernel, self.text, self.position = kernel, text, start
        self.line, self.counted = text.count("\n", 0, start) + 1, start
        self.files = dict(re.findall(r"\.file\s+(\d+)\s+\"(?:[^\"]*/)?([^\"/]*)\"", text))
        self.source = ""
        self.symbols = {p.name: Symbol(p.name, "param", p.offset) for p in kernel.parameters}
        self.scope = _Scope(None)
        self.pending: list[tuple[re.Match[str], str, int, str, _Scope]] = []
        self.dynamic: list[str] = []
        for array in module:  # type: ignore[attr-defined]
            self._array(array)

    def read(self) -> None:
        depth = 1
        while depth:
            token = TOKEN.match(self.text, self.position)
            if not token:
                raise UnsupportedError(f"cannot read PTX line {self.line}: {self.text[self.position :][:80]!r}")
            start = token.start(token.lastgroup or 0)
            self.line += self.text.count("\n", self.counted, start)
            self.counted, self.position = start, token.end()
            if token["label"]:
                self.scope.labels[token["label"]] = len(self.pending)
            elif token["brace"] == "{":
                depth, self.scope = depth + 1, _Scope(self.scope)
            elif token["brace"]:
                depth -= 1
                self.scope = self.scope.outer or self.scope
            else:
                self._statement(token["statement"].strip())
        for name in self.dynamic:  # the dynamic part follows everything static, whatever the order of declarations
            self.symbols[name] = Symbol(name, "shared", _aligned(self.kernel.shared_bytes, 16))
        self.kernel.instructions = [self._instruction(*pending) for pending in self.pending]

    def _statement(self, text: str) -> None:
        if not text.startswith("."):
            match = STATEMENT.fullmatch(text)
            if not match:
                raise UnsupportedError(f"cannot read PTX line {self.line}: {text!r}")
            self.pending.append((match, " ".join(text.split()), self.line, self.source, self.scope))
        elif text.split()[0] == ".loc":
            file, line = text.split()[1:3]
            self.source = f"{self.files.get(file, file)}:{line}"
        elif text.split()[0] == ".reg":
            self._registers(text)
        elif match := ARRAY.fullmatch(text.removeprefix(".extern ") + ";"):
            self._array(match)
        elif text.split()[0] not in (".pragma", ".file"):
            raise UnsupportedError(f"directive in PTX line {self.line}: {text!r}")

    def _registers(self, text: str) -> None:
        match = re.fullmatch(r"\.reg\s+\.(\w+)\s+(.*)", text, re.S)
        if not match or match[1] not in WIDTHS:
            raise UnsupportedError(f"register declaration in PTX line {self.line}: {text!r}")
        for name in match[2].split(","):
            if family := re.fullmatch(r"(.*)<\d+>", name.strip()):
                self.scope.families[family[1]] = WIDTHS[match[1]]
            else:
                self._declare(self.scope, name.strip(), WIDTHS[match[1]])

    def _declare(self, scope: _Scope, name: str, bits: int) -> Register:
        register = Register(len(self.kernel.registers), bits, name)
        self.kernel.registers.append(register)
        scope.registers[name] = register
        return register

    def _array(self, match: re.Match[str]) -> None:
        space, alignment, kind, bits, name, count, values = match.groups()
        width = int(bits) // 8
        size = width * int(count or 1)
        kernel = self.kernel
        if space == "shared" and count == "":
            self.dynamic.append(name)
            return
        if space in ("shared", "local"):
            field_ = f"{space}_bytes"
            offset = _aligned(getattr(kernel, field_), int(alignment or width))
            setattr(kernel, field_, offset + size)
        else:
            offset = _aligned(len(kernel.constants), int(alignment or width))
            data = b"".join(self._literal(value, kind, width) for value in re.findall(r"[^\s{},]+", values or ""))
            kernel.constants = kernel.constants.ljust(offset, b"\0") + data.ljust(size, b"\0")
        self.symbols[name] = Symbol(name, space, offset)

    def _literal(self, text: str, kind: str, width: int) -> bytes:
        literal = _immediate(text)
        if literal is None:
            raise UnsupportedError(f"initial value {text!r}")
        return (literal.value & (1 << 8 * width) - 1).to_bytes(width, "little")

    def _instruction(self, match: re.Match[str], text: str, line: int, source: str, scope: _Scope) -> Instruction:
        negated, guard, opcode, modifiers, rest = match.groups()
        try:
            predicate = self._operand(("!" if negated else "") + guard, scope) if guard else None
            operands = tuple(self._operand(operand, scope) for operand in _split(rest))
        except KeyError as error:
            raise UnsupportedError(f"{error.args[0]!r} is not declared, in PTX line {line}: {text}") from None
        except UnsupportedError as error:
            raise UnsupportedError(f"{error}, in PTX line {line}: {text}") from None
        assert predicate is None or isinstance(predicate, (Register, Negated))
        return Instruction(opcode, modifiers, operands, predicate, text, line, source)

    def _operand(self, text: str, scope: _Scope) -> Operand:
        if text == "_":
            return Sink()
        if text[0] == "{":
            return Vector(tuple(self._operand(part, scope) for part in _split(text[1:-1])))
        if text[0] == "[":
            if not (match := ADDRESS.fullmatch(text)):
                raise UnsupportedError(f"address {text}")
            base, sign, offset = match.groups()
            return Address(self._operand(base, scope), int(offset or "0", 0) * (-1 if sign == "-" else 1))  # type: ignore[arg-type]
        if "|" in text:
            first, second = text.split("|")
            return Pair(self._operand(first.strip(), scope), self._operand(second.strip(), scope))
        if text[0] == "!":
            register = self._operand(text[1:], scope)
            assert isinstance(register, Register)
            return Negated(register)
        return _immediate(text) or self._named(text, scope)

    def _named(self, name: str, scope: _Scope) -> Operand:
        family = name.rstrip("0123456789")
        level: _Scope | None = scope
        while level:
            if name in level.registers:
                return level.registers[name]
            if name in level.labels:
                return Label(name, level.labels[name])
            if family != name and family in level.families:
                return self._declare(level, name, level.families[family])
            level = level.outer
        if SPECIAL.fullmatch(name):
            return Special(name)
        return self.symbols[name]


def _immediate(text: str) -> Immediate | None:
    if match := INTEGER.fullmatch(text):
        return Immediate(int(match[2], 0) * (-1 if match[1] else 1), None, text)
    if match := re.fullmatch(r"0[fF]([0-9a-fA-F]{8})|0[dD]([0-9a-fA-F]{16})", text):
        return Immediate(int(match[1] or match[2], 16), 32 if match[1] else 64, text)
    if re.fullmatch(r"-?\d+\.\d*", text):
        return Immediate(int.from_bytes(struct.pack("<f", float(text)), "little"), 32, text)
    return None


def _split(text: str) -> list[str]:
    """At the commas that stand outside of all braces."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in "{[(") - (character in "}])")
        if character == "," and not depth:
            parts.append(text[start:i].strip())
            start = i + 1
    last = text[start:].strip()
    return [*parts, last] if last else parts
