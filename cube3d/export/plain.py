"""From a run's model to the modules of :mod:`cube3d.export.cube`, which are plain PyTorch."""

from __future__ import annotations

import tempfile
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from cube3d.errors import UserError
from cube3d.reader.tokenizer import FILE
from cube_kernels import EmbeddingCube, Lattice, Rule, TokenLattice, perceive
from cube_kernels.lattice import OUTSIDE

if TYPE_CHECKING:
    from cube3d.export.cube import Cube, Reader
    from cube3d.model import RidgeMixture
    from cube3d.reader.model import ReaderModel

OF_A_STEP = ("activation", "update", "squash", "step_size")
"""Options of a rule that a plain module is told."""

OF_SHAPES = ("perception", "filters", "hidden")
"""Those that show in the shapes of its tensors."""


def plain_cube(cube: EmbeddingCube, mixture: RidgeMixture | None = None) -> Cube:
    """The cube without cube_kernels: its rule in plain PyTorch, its lattice as a table; and the ridge that is mixed
    into its predictions.

    Raises:
        UserError: see :func:`plain_rule`.
    """
    from cube3d.export.cube import Cube

    rule, lattice = cube.layer.rule, cube.lattice
    learned: dict[str, Tensor] = {name.removeprefix("layer."): value for name, value in cube.named_parameters()}
    numbers = torch.arange(lattice.cells).reshape(lattice.shape)
    fixed = {
        "order": torch.arange(cube.dim) if cube.order is None else cube.order,
        "entered": numbers[cube.input].flatten(),
        "left": numbers[cube.output].flatten(),
        "neighbors": neighbor_table(lattice, own=rule.perception == "depthwise"),
        "retention": _retention(*(lattice.axis_retention(axis) for axis in range(3))),
    }
    if mixture is not None:
        fixed |= {f"ridge_{name}": value for name, value in mixture.named_buffers()}
    return _filled(Cube, learned, fixed, steps=cube.layer.steps, rule=plain_rule(rule))


def plain_reader(model: ReaderModel) -> Reader:
    """The reader without cube3d and cube_kernels.

    Raises:
        UserError: a context that is neither a lattice nor none, and see :func:`plain_rule`.
    """
    from cube3d.export.cube import Reader

    table, reading = model.table.state_dict(), model.reading
    learned: dict[str, Tensor] = {"log_weight": model.log_weight}
    fixed: dict[str, Tensor] = {}
    if model.table.storage == "float32":
        learned["table"] = table["vectors"]
    else:
        fixed["table"] = table["codes"]
    if model.table.storage == "int8":
        fixed["table_scale"] = table["scale"]
    layers = {"lift": reading.lift, "read": reading.read, "output": reading.to_output}
    for name, layer in layers.items():
        if layer is not None:
            learned |= {f"{name}_weight": layer.weight, f"{name}_bias": layer.bias}
    steps, rule, seen, context = 0, {}, [], reading.context
    if isinstance(context, TokenLattice):
        steps, rule = context.layer.steps, plain_rule(context.layer.rule)
        lattice = context.lattice
        learned |= dict(context.layer.named_parameters())
        fixed["retention"] = _retention(lattice.axis_retention(0), lattice.axis_retention(1), [1.0])
        seen = token_neighbors(lattice, own=context.layer.rule.perception == "depthwise")
    elif context is not None:
        raise UserError(
            f"reader.context is {model.settings.context!r}; a reader is exported with 'lattice' or 'none' alone: the "
            "others are there to be measured beside them"
        )
    plain = _filled(
        Reader,
        learned,
        fixed,
        steps=steps,
        rule=rule,
        seen=seen,
        max_seq_length=model.settings.max_length,
        unknown=model.tokenizer.unknown,
    )
    plain.tokenizer = plain_tokenizer(model)
    return plain


def plain_rule(rule: Rule) -> dict[str, Any]:
    """What a plain module is told of the rule.

    Raises:
        UserError: the rule has an option that the plain modules do not know.
    """
    usual = Rule()
    for field in fields(rule):
        value = getattr(rule, field.name)
        if field.init and field.name not in (*OF_A_STEP, *OF_SHAPES) and value != getattr(usual, field.name):
            raise UserError(f"the rule's {field.name} is {value!r}, which cannot be exported")
    return {name: getattr(rule, name) for name in OF_A_STEP}


def plain_tokenizer(model: ReaderModel) -> Tokenizer:
    """The reader's tokenizer, set up to give just what the reader takes: cut, padded with 0 at the end, and without the
    marks of a transformer."""
    with tempfile.TemporaryDirectory() as folder:
        model.tokenizer.save(Path(folder))
        tokenizer = Tokenizer.from_file(str(Path(folder) / FILE))
    tokenizer.post_processor = None
    tokenizer.enable_truncation(model.settings.max_length)
    tokenizer.enable_padding()
    return tokenizer


def _filled(kind: type[Any], learned: dict[str, Tensor], fixed: dict[str, Tensor], **options: Any) -> Any:
    """A module of the kind with these tensors."""
    module = kind(
        learned={name: list(value.shape) for name, value in learned.items()},
        fixed={name: [str(value.dtype).removeprefix("torch."), *value.shape] for name, value in fixed.items()},
        **options,
    )
    module.load_state_dict({name: value.detach() for name, value in {**learned, **fixed}.items()})
    return module.eval()


def _retention(*axes: list[float]) -> Tensor:
    """What is left of each cell after a step, ``[cells, 1]``."""
    return torch.einsum("d,h,w->dhw", *map(torch.tensor, axes)).float().reshape(-1, 1)


def neighbor_table(lattice: Lattice, own: bool) -> Tensor:
    """The cell that each cell sees at each offset, ``[offsets, cells]``, int64; ``cells`` for one outside.

    Args:
        lattice: any.
        own: whether the cell itself is among the offsets, as in ``lattice.offsets``, or not, as ``"gather"`` sees.
    """
    seen = Lattice(lattice.shape, 1, lattice.neighborhood, lattice.radius, lattice.boundary)
    # Cells that carry their number, from 1 on: what a cell perceives then says whom it sees, and 0 says nobody.
    numbers = torch.arange(1.0, lattice.cells + 1, dtype=torch.float64).reshape(1, *lattice.shape, 1)
    filters = torch.eye(len(lattice.offsets), dtype=torch.float64)[..., None] if own else None
    percepts = perceive(numbers, seen, filters).reshape(lattice.cells, -1).T.long() - 1
    return torch.where(percepts < 0, lattice.cells, percepts).contiguous()


def token_neighbors(lattice: Lattice, own: bool) -> list[tuple[int, list[int]]]:
    """What each cell of a token's column sees at each offset: how many tokens away, and which cell of the column there;
    ``depth · height`` for one outside. Before and after a text there is nothing.

    Args:
        lattice: along a text.
        own: see :func:`neighbor_table`.
    """
    (depth, height, _), reach = lattice.shape, lattice.reach
    along_d, along_h = lattice.axis_targets(0), lattice.axis_targets(1)
    table = []
    for d, h, w in lattice.offsets if own else lattice.neighbors:
        there = product(along_d[d + reach[0]], along_h[h + reach[1]])
        table.append((w, [depth * height if OUTSIDE in (z, y) else z * height + y for z, y in there]))
    return table
