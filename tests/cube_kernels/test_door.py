"""The compiled look at a call's tensors says yes to what kernels can read and to nothing else."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cube_kernels import Lattice, Rule, bind
from cube_kernels.call import door
from cube_kernels.call.door import Kind

AUTOMATON = bind(Lattice((2, 1, 3), 4), Rule(filters=2, hidden=5, drive=3))
BATCH = 2


class Wrapper(torch.Tensor):
    """Holds another tensor and has no memory."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), named=None):
        raise NotImplementedError(str(function))


def tensors(dtype=torch.float32, batch=BATCH, drive_batch=BATCH, mask_batch=BATCH):
    """That fit, in the order of the automaton's shapes."""
    made = []
    for shape, rows in zip(AUTOMATON.given_shapes, [batch, *[None] * 6, drive_batch, mask_batch], strict=True):
        made.append(None if shape is None else torch.randn([rows if size == -1 else size for size in shape]).to(dtype))
    made[-1] = made[-1] > 0
    return made


def looked(made):
    return door.look(tuple(made), AUTOMATON.given_shapes)


def faked(tensor):
    with FakeTensorMode() as mode:
        return mode.from_tensor(tensor)


def of_a_transform(tensor):
    kept = []
    torch.func.vmap(lambda row: kept.append(row) or row)(tensor[None])
    return kept[0]


def odd_strides(tensor):
    """The axis of one cell has a stride that means nothing."""
    return tensor.as_strided(
        tensor.shape, [s if n != 1 else 10**6 for n, s in zip(tensor.shape, tensor.stride(), strict=True)]
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("drive_batch", "mask_batch"), [(BATCH, BATCH), (1, BATCH), (BATCH, 1)])
def test_what_fits_is_frozen_until_something_is_trained(dtype, drive_batch, mask_batch):
    made = tensors(dtype, drive_batch=drive_batch, mask_batch=mask_batch)
    assert looked(made) == Kind.FROZEN
    assert looked([*made[:-1], None]) == Kind.FROZEN
    made[2] = nn.Parameter(made[2])
    assert looked(made) == Kind.TRAINED


@pytest.mark.parametrize("change", [odd_strides, lambda x: x[:0], lambda x: torch.cat([x, x])[BATCH:]])
def test_strides_of_no_meaning_empty_batches_and_views_are_read(change):
    made = tensors(drive_batch=1, mask_batch=1)
    made[0] = change(made[0])
    assert looked(made) == Kind.FROZEN


ODD = {
    "permuted": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "one row for all": lambda x: x[:1].expand_as(x),
    "negated": torch._neg_view,
    "zeros without memory": lambda x: torch._efficientzerotensor(x.shape),
    "sparse": lambda x: x.to_sparse(),
    "of mkldnn": lambda x: x.to_mkldnn(),
    "meta": lambda x: x.to("meta"),
    "fake": faked,
    "a wrapper": Wrapper,
    "of a transform": of_a_transform,
    "functional": torch._to_functional_tensor,
    "another dtype": lambda x: x.double(),
    "integers": lambda x: x.long(),
    "another rank": lambda x: x[None],
    "a row more": lambda x: torch.cat([x, x[:1]]),
    "a column less": lambda x: x[..., :-1].contiguous(),
    "no tensor": lambda x: 3,
    "none": lambda x: None,
}


@pytest.mark.parametrize("place", [0, 1, 7])
@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_whatever_is_odd_is_left_to_the_checks(place, change):
    made = tensors()
    made[place] = change(made[place])
    assert looked(made) == Kind.ODD


@pytest.mark.parametrize("mask", [lambda m: m.byte(), lambda m: m.float(), lambda m: m[..., None], lambda m: ~m[:, :1]])
def test_a_mask_is_of_truth_values_for_each_cell(mask):
    made = tensors()
    made[-1] = mask(made[-1])
    assert looked(made) == Kind.ODD


def test_a_tensor_where_none_is_due_is_odd():
    made, shapes = tensors(), list(AUTOMATON.given_shapes)
    shapes[1] = None
    assert door.look(tuple(made), tuple(shapes)) == Kind.ODD


def test_without_the_compiled_look_the_checks_decide(monkeypatch):
    monkeypatch.setattr(door, "_reader", lambda: None)
    assert looked(tensors()) == Kind.ODD
