"""What each backend takes: asked of the backends themselves, with no device at hand. ``python -m
tests.cube_kernels.support`` writes docs/support.md; `test_support.py` holds the page to it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from cube_kernels import Alive, Lattice, Rule
from cube_kernels.backends import cuda, native, triton
from cube_kernels.backends.compiled import unknown_name
from cube_kernels.backends.triton import plan as triton_names
from cube_kernels.call.door import DTYPES
from cube_kernels.lattice import BOUNDARIES, NEIGHBORHOODS
from cube_kernels.update_rule import ACTIVATIONS, ALIVE_WHEN, PERCEPTIONS, SQUASHES, UPDATES

PAGE = Path(__file__).parents[2] / "docs" / "support.md"
BOX, STEP = Lattice((2, 3, 4), 4), Rule(hidden=8)


class Feature(NamedTuple):
    title: str
    lattice: Lattice = BOX
    rule: Rule = STEP
    dtype: torch.dtype = torch.float32


def features() -> list[Feature]:
    """One line of the table each."""
    rows = [Feature(f"neighborhood `{name}`", Lattice((2, 3, 4), 4, name)) for name in NEIGHBORHOODS]
    rows.append(Feature("any list of offsets", Lattice((2, 3, 4), 4, ((0, 0, 0), (-1, 1, 0), (0, 0, 2)))))
    rows += [Feature(f"boundary `{name}`", Lattice((2, 3, 4), 4, boundary=name)) for name in BOUNDARIES]
    rows += [Feature(f"perception `{name}`", rule=Rule(perception=name, hidden=8)) for name in PERCEPTIONS]
    rows.append(Feature("fixed filters", rule=Rule(fixed_filters=("identity", "laplacian"), hidden=8)))
    rows.append(Feature("a drive", rule=Rule(drive=3, hidden=8)))
    rows += [Feature(f"activation `{name}`", rule=Rule(activation=name, hidden=8)) for name in ACTIVATIONS]
    rows.append(Feature("a bare stencil, `hidden=0`", rule=Rule(filters=1, own_state=False, hidden=0)))
    rows += [Feature(f"update `{name}`", rule=Rule(update=name, hidden=8)) for name in UPDATES]
    rows += [Feature(f"squash `{name}`", rule=Rule(squash=name, hidden=8)) for name in SQUASHES]
    rows.append(Feature("a fire rate", rule=Rule(fire_rate=0.5, hidden=8)))
    rows.append(Feature("clamp", rule=Rule(clamp=(-1.0, 1.0), hidden=8)))
    rows.append(Feature("immutable channels", rule=Rule(immutable_channels=(0,), hidden=8)))
    rows += [Feature(f"alive, `{when}`", rule=Rule(alive=Alive(0, when=when), hidden=8)) for when in ALIVE_WHEN]
    rows += [Feature(f"`{dtype}`", dtype=dtype) for dtype in DTYPES]
    return rows


def takes(feature: Feature) -> dict[str, bool]:
    """Of each backend, whether it does on a device of its kind. The CUDA module must be built."""
    lattice, rule, dtype = feature.lattice, feature.rule, feature.dtype
    module, reason = cuda.extension()
    assert module is not None, reason
    return {
        "reference": True,
        "native": native.why_not(lattice, rule, dtype, torch.device("cpu")) is None,
        "triton": dtype in triton.DTYPES and unknown_name(triton_names, lattice, rule) is None,
        "cuda": dtype in cuda.STORAGE and unknown_name(module, lattice, rule) is None,
    }


def page() -> str:
    """The table as Markdown."""
    rows = {feature.title: takes(feature) for feature in features()}
    backends = list(next(iter(rows.values())))
    lines = [
        "# What each backend supports",
        "",
        "Asked of the backends themselves. `python -m tests.cube_kernels.support` writes this page, and a test holds "
        "it to them. Every *yes* is compared with the reference, forward and every gradient, by the tests of that "
        "backend. A *no* is an error with the reason where the backend is named; "
        '`backend="auto"` takes another.',
        "",
        "- `reference`: PyTorch, on any device.",
        "- `native`: C++ on the CPU.",
        f"- `triton`: NVIDIA and AMD GPUs, up to {triton.CHANNEL_LIMIT} channels.",
        "- `cuda`: NVIDIA GPUs, small lattices: a sample must fit shared memory, see [the CUDA backend](cuda.md).",
        "",
        "Neither of the two for GPUs has run on one yet. Derivatives and compilers: "
        "[under torch's transforms](transforms.md).",
        "",
        "| | " + " | ".join(f"`{name}`" for name in backends) + " |",
        "|---|" + "---|" * len(backends),
    ]
    lines += [
        f"| {title} | " + " | ".join("yes" if row[b] else "no" for b in backends) + " |" for title, row in rows.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
