"""A layer as a file: its tensors in safetensors, what they mean in the metadata. Loading one runs no code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cube_kernels.automaton import bind
from cube_kernels.lattice import Lattice
from cube_kernels.update_rule import Rule

FORMAT, VERSION = "cube_kernels.CubeLayer", "1"

Path = str | os.PathLike[str]


class Saved(NamedTuple):
    """What a file holds."""

    lattice: Lattice
    rule: Rule
    steps: int
    tensors: Mapping[str, Tensor]
    constants: list[str]
    """Names of the tensors that no optimizer changes."""


def write(path: Path, saved: Saved) -> None:
    lattice, rule, steps, tensors, constants = saved
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "lattice": lattice.key,
        "rule": rule.key,
        "steps": str(steps),
        "constants": json.dumps(constants),
    }
    content = save({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, metadata)
    # Beside its place first, so that no half of a file takes it; by Python, which leaves who may read it to the umask.
    partial = f"{os.fspath(path)}.partial"
    with open(partial, "wb") as file:
        file.write(content)
    os.replace(partial, path)


def read(path: Path) -> Saved:
    """
    Raises:
        ValueError: a file of something else or of another version, a damaged one.
        FileNotFoundError: there is none.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except SafetensorError as wrong:
        raise ValueError(f"CubeLayer.load: {path} is no whole safetensors file: {wrong}") from wrong
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"CubeLayer.load: {path} is a safetensors file of something else; CubeLayer.save writes its own"
        )
    if metadata.get("version") != VERSION:
        raise ValueError(
            f"CubeLayer.load: {path} is of version {metadata.get('version')}; this cube_kernels reads version {VERSION}"
        )
    try:
        lattice, rule = Lattice.from_key(metadata["lattice"]), Rule.from_key(metadata["rule"])
        saved = Saved(lattice, rule, int(metadata["steps"]), tensors, json.loads(metadata["constants"]))
        shapes = bind(lattice, rule).parameter_shapes
    except (KeyError, ValueError) as wrong:
        raise ValueError(f"CubeLayer.load: {path} does not say what layer it holds: {wrong}") from wrong
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != shapes:
        given, due = ({name: tuple(shape) for name, shape in named.items()} for named in (found, shapes))
        raise ValueError(f"CubeLayer.load: {path} holds tensors of shapes {given}, but its rule has {due}")
    return saved
