"""What ranks that share a lattice compute together is what one process computes alone."""

import functools

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from cube_kernels import Alive, Lattice, Rule
from cube_kernels.sharding import Sharding
from tests.cube_kernels.sharding.cases import Case, cases, draw, in_blocks, whole, wrong
from tests.cube_kernels.sharding.ranks import on_ranks

DTYPES = {torch.float64: 1e-12, torch.float32: 2e-4, torch.bfloat16: 0.03}


def _all_cases(rank: int, ranks: int) -> dict[tuple[str, str, str], list[str]]:
    found = {}
    for name, case in cases().items():
        sharding = Sharding(case.lattice, {"D": dist.group.WORLD}, {"D": case.sizes[ranks]})
        for backend in ("native", "reference"):
            for dtype, tolerance in DTYPES.items():
                if backend == "reference" and dtype is not torch.float64:
                    continue  # its sums depend on how many cells there are
                if ranks != 2 and (backend, dtype) != ("native", torch.float64):
                    continue  # how many there are is no matter of dtypes
                found[name, backend, str(dtype)] = wrong(case, sharding, backend, dtype, tolerance, backend == "native")
    return found


@functools.cache
def _found(ranks: int) -> list[dict[tuple[str, str, str], list[str]]]:
    return on_ranks(_all_cases, ranks, ranks)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", cases())
def test_slabs_are_the_whole(name, ranks):
    """States bit for bit, gradients to rounding, in every case and dtype."""
    for rank, found in enumerate(_found(ranks)):
        checked = {which: errors for which, errors in found.items() if which[0] == name}
        assert len(checked) == (4 if ranks == 2 else 1)
        assert not any(checked.values()), f"rank {rank}: {checked}"


def _grid(rank: int) -> dict[str, list[str]]:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("d", "w"))
    found = {}
    for axes in ({"D": mesh["d"], "W": mesh["w"]}, {"H": mesh["d"], "W": mesh["w"]}):
        for name, case in cases().items():
            sharding = Sharding(case.lattice, axes)
            found[f"{'x'.join(axes)}: {name}"] = wrong(case, sharding, "native", torch.float64, 1e-12, True)
    return found


def test_blocks_of_two_axes_are_the_whole():
    """Corners come along, in every case."""
    for rank, found in enumerate(on_ranks(_grid, 4)):
        assert len(found) == 2 * len(cases())
        assert not any(found.values()), f"rank {rank}: { {name: errors for name, errors in found.items() if errors} }"


def _half_width(rank: int) -> dict[str, bool]:
    same = {}
    for name in ("walls, every 1", "walls, every 2", "periodic, every 4"):
        case = cases()[name]
        sharding = Sharding(case.lattice, {"D": dist.group.WORLD}, {"D": case.sizes[2]})
        inputs = draw(case, torch.bfloat16)
        truth, found = whole(case, inputs, "native"), in_blocks(case, inputs, sharding, "native")
        same[name] = torch.equal(found["gradient of x"], sharding.take(truth["gradient of x"]))
    return same


def test_gradients_of_half_width_states_are_rounded_once():
    """At the end, as in one process: rounded from chunk to chunk, more than half of them would be others."""
    for same in on_ranks(_half_width, 2):
        assert all(same.values()), same


def _interpreted(rank: int) -> list[str]:
    lattice = Lattice((5, 2, 3), 2, boundary="periodic")
    rule = Rule(hidden=4, fire_rate=0.5, alive=Alive(0, 0.2))
    case = Case(lattice, rule, 2, {2: (2, 3)}, {"seed": 3, "steps": 3, "first_step": 7}, masked=True)
    sharding = Sharding(lattice, {"D": dist.group.WORLD}, {"D": case.sizes[2]})
    return wrong(case, sharding, "triton", torch.float32, DTYPES[torch.float32], bits=False)


def test_slabs_on_triton_are_the_whole(monkeypatch):
    """Its kernels read where they are in the whole as the others do; here they are interpreted, which takes long: one
    small case."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert on_ranks(_interpreted, 2, timeout=300, start="spawn") == [[], []]
