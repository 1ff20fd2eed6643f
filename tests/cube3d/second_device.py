"""The command line on a machine with a second device: ``python -m tests.cube3d.second_device train ...``.

The device is Python's own (torch's PrivateUse1). A tensor of the CPU stands for each on it, no operation takes tensors
of both devices, and views that are not contiguous are copies. So what runs here names the device of every tensor it
makes, and gives what the CPU gives.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
import transformers.modeling_utils
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from cube3d.cli import main

NAME = "second"
MOVES = ("aten::_to_copy", "aten::copy_")

held: dict[int, Tensor] = {}
"""What stands for each tensor, by its storage; autograd makes new tensors of old storages."""


class Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def is_there(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == NAME


def here(value: Any) -> Any:
    """What stands for it on the CPU."""
    if is_there(value):
        return held[value.untyped_storage()._cdata]
    return torch.device("cpu") if isinstance(value, torch.device) else value


def there(value: Any) -> Any:
    """A tensor of the second device that a tensor of the CPU stands for."""
    if not isinstance(value, Tensor) or is_there(value):
        return value
    made = torch._C._acc.create_empty_tensor(value.shape, value.dtype)
    held[made.untyped_storage()._cdata] = value.contiguous()
    return made


def run(operator: Any, *arguments: Any, **named: Any) -> Any:
    """An operator of which an argument, or the device asked for, is the second."""
    if operator.name() == "aten::_copy_from":
        source, target = arguments[:2]
        here(target).copy_(here(source))
        return target
    given = pytree.tree_leaves((arguments, named))
    moves = operator.name() in MOVES
    for value in given:
        if isinstance(value, Tensor) and not is_there(value) and value.dim() and not moves:
            raise RuntimeError(f"{operator}: a tensor of the CPU among those of {NAME}")
    arguments_here, named_here = pytree.tree_map(here, (arguments, named))
    if operator.name() == "aten::as_strided" and len(arguments) > 3:  # counted from where the tensor begins
        arguments_here = (*arguments_here[:3], arguments_here[3] + arguments_here[0].storage_offset())
    result = operator(*arguments_here, **named_here)
    if moves and torch.device(named.get("device") or NAME).type == "cpu":
        return result
    written = {id(here(value)): value for value in given if is_there(value)}
    return pytree.tree_map(lambda value: written[id(value)] if id(value) in written else there(value), result)


def composites() -> Iterator[tuple[str, Any]]:
    """Operators that would be computed by others, into tensors whose size they change, which a stand-in cannot."""
    for full in torch._C._dispatch_get_all_op_names():
        space, _, name = full.partition("::")
        if space != "aten" or not torch._C._dispatch_has_kernel_for_dispatch_key(full, "CompositeExplicitAutograd"):
            continue
        packet, _, overload = name.partition(".")
        operator = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
        returns = [] if operator is None else operator._schema.returns
        if any("Tensor" in str(r.type) for r in returns) and not any(r.alias_info for r in returns):
            yield name, operator


if __name__ == "__main__":
    _setup_privateuseone_for_python_backend(NAME, Module())
    every, some = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    every.fallback(run, "PrivateUse1")
    for name, operator in composites():
        some.impl(name, lambda *a, _operator=operator, **n: run(_operator, *a, **n), "PrivateUse1")
    # Files are written from memory, which a stand-in has none of.
    identity, save = transformers.modeling_utils.id_tensor_storage, torch.save
    transformers.modeling_utils.id_tensor_storage = lambda tensor: identity(here(tensor))
    torch.save = lambda value, *a, **n: save(pytree.tree_map(here, value), *a, **n)
    sys.exit(main())
