"""What torch's transforms make of each public callable: one table, which `test_transforms.py` holds to and
``python -m tests.cube_kernels.transforms`` writes as docs/transforms.md."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[2] / "docs" / "transforms.md"

ROLLOUTS = ("rollout", "CubeLayer", "heat", "EmbeddingCube", "TokenLattice", "TokenCube")
CELLS = ("GMLPCell", "GRUCell")
CALLABLES = ("rollout", "perceive", "CubeLayer", "heat", "EmbeddingCube", "TokenLattice", "TokenCube", *CELLS)

YES = "yes"
REFERENCE = "reference"
NOT_ASKED = "–"
ONCE, ONLY_BACK, RECOMPUTED = "no: differentiable once", "no: backward only", "no: recomputed elsewhere"
PLACEMENT, EACH_GRAPH, NO_BATCHES = "no: placement", "a graph for each", "no: `torch.nn.GRUCell`"

REFUSALS = {
    ONCE: ("'native' is differentiable once.*use backend='reference'", "a rollout's kernels have no second derivative"),
    ONLY_BACK: (
        "carries no derivative forward.*backend='reference'",
        "the kernels of a backward pass carry no derivative forward",
    ),
    RECOMPUTED: (
        "Recomputed values .* have different metadata",
        "a checkpoint would compute its steps again by the reference; `checkpoint=False`, or `backend='reference'`",
    ),
    PLACEMENT: (
        "x has the placement .*; valid: Replicate",
        "the samples are whole or in shards; a lattice stays whole",
    ),
    EACH_GRAPH: (
        "Recompiling function",
        "right, but a graph is of so many steps: another number of them is compiled anew",
    ),
    NO_BATCHES: ("Batching rule not implemented for aten::unsafe_split", "torch has no such rule for its own cell"),
}
"""Of each mark that is one: what the exception says, and what the page does."""


def _all(mark: str = YES, **others: str) -> dict[str, str]:
    return {name: others.get(name, mark) for name in CALLABLES}


def _rollouts(mark: str, rest: str = YES) -> dict[str, str]:
    return {name: mark if name in ROLLOUTS else rest for name in CALLABLES}


class Row(NamedTuple):
    title: str
    marks: dict[str, str]
    """With a backend of kernels."""
    reference: dict[str, str] = {}  # noqa: RUF012
    """With ``backend="reference"``, where it is not yes."""

    def mark(self, name: str, backend: str) -> str:
        if backend != "reference" or self.marks[name] == NOT_ASKED:
            return self.marks[name]
        return self.reference.get(name, YES)


_no_steps = dict.fromkeys(("perceive", "EmbeddingCube", "TokenLattice", "TokenCube"), NOT_ASKED)

# By the name of its check.
TABLE: dict[str, Row] = {
    "grad": Row("`torch.func.grad`, `vjp`", _all()),
    "grad_in_parameters": Row("`grad` of a `functional_call`, in parameters", _all(heat=NOT_ASKED)),
    "gradients_of_each_sample": Row("`vmap(grad)`: gradients of each sample", _all(heat=NOT_ASKED)),
    "jacrev": Row("`jacrev`", _all()),
    "grad_of_grad": Row("`jacrev(grad)`", _rollouts(ONCE)),
    "create_graph": Row("`autograd.grad(create_graph=True)`, twice", _rollouts(ONCE)),
    "jvp": Row("`torch.func.jvp`, under `no_grad` too", _all(REFERENCE)),
    "jvp_of_frozen": Row("`jvp` of a frozen module", _all(REFERENCE)),
    "jvp_in_parameters": Row("`jvp` in parameters", _all(REFERENCE, heat=NOT_ASKED)),
    "dual": Row("`forward_ad.make_dual`, frozen and under `no_grad` too", _all(REFERENCE)),
    "jacfwd": Row("`jacfwd`", _all(REFERENCE)),
    "hessian": Row("`hessian`", _all(REFERENCE)),
    "jvp_of_vjp": Row("`jvp` of the function that `vjp` gave", _all(ONLY_BACK)),
    "dual_cotangent": Row("`autograd.grad` with a dual cotangent", _all(ONLY_BACK, **dict.fromkeys(CELLS, RECOMPUTED))),
    "vmap": Row("`vmap`", _all()),
    "vmap_over_parameters": Row("`vmap` over parameters", _all(heat=NOT_ASKED)),
    "functional_call": Row("`functional_call`, then autograd", _all()),
    "batched_gradients": Row("`is_grads_batched`, `jacobian(vectorize=True)`", _all()),
    "vectorized_forward": Row(
        '`jacobian(vectorize=True, strategy="forward-mode")`', _all(REFERENCE, GRUCell=NO_BATCHES),
        {"GRUCell": NO_BATCHES},
    ),
    "compile": Row("`torch.compile(fullgraph=True)`", _all()),
    "compile_any_batch": Row("the same, any batch by one graph", _all()),
    "compile_any_steps": Row(
        "the same, any number of steps", _all(**_no_steps, **dict.fromkeys(CELLS, EACH_GRAPH)),
        _all(EACH_GRAPH),
    ),
    "inductor": Row("the same by Inductor", _all()),
    "export": Row("`torch.export`, saved and loaded, any batch", _all()),
    "export_strict": Row("`torch.export(strict=True)`, likewise", _all()),
    "aot_inductor": Row("AOTInductor, frozen", _all()),
    "trace": Row("`torch.jit.trace`, then trained", _all()),
    "trace_of_frozen": Row("`torch.jit.trace` of a frozen module", _all()),
    "trace_without_gradients": Row("`torch.jit.trace` under `no_grad`", _all()),
    "autocast": Row("`autocast` to bfloat16", _all()),
    "inference": Row("`inference_mode`", _all()),
    "deepcopy": Row("`copy.deepcopy`", _all()),
    "pickle": Row("`pickle`", _all()),
    "saved_tensor_hooks": Row("hooks on saved tensors, of any layout", _all()),
    "checkpoint": Row("`torch.utils.checkpoint`", _all()),
    "reentrant_checkpoint": Row("`torch.utils.checkpoint(use_reentrant=True)`", _all()),
    "replicated": Row("`DTensor`, replicated", _all()),
    "sharded": Row("`DTensor`, `Shard(0)`", _all()),
    "shards_of_a_lattice": Row("`DTensor`, another shard", _all(PLACEMENT), _all(PLACEMENT)),
    "fsdp": Row("FSDP2, `fully_shard`", _all()),
}  # fmt: skip


def page() -> str:
    """The table as Markdown."""
    lines = [
        "# Under torch's transforms",
        "",
        "What each public callable gives under each transform, with a backend of kernels. Each cell is a test of "
        "`tests/cube_kernels/test_transforms.py`, on the native backend and on the reference; `python -m "
        "tests.cube_kernels.transforms` writes this page.",
        "",
        "- **yes**: the right value, computed by the kernels.",
        "- **reference**: the right value, computed by the reference in plain PyTorch; slower, and exact.",
        f"- **{NOT_ASKED}**: it has none of what is asked: no parameters that are trained, no number of steps.",
    ]
    lines += [f"- **{mark}**: {why}." for mark, (_, why) in REFUSALS.items()]
    lines += [
        "",
        'A *no* is an exception that says so, never a wrong number. With `backend="reference"` every cell is *yes*, '
        f"but those marked *{PLACEMENT}* and *{NO_BATCHES}*, and compilers make *{EACH_GRAPH}* number of steps.",
        "",
        "| | " + " | ".join(f"`{name}`" for name in CALLABLES) + " |",
        "|---|" + "---|" * len(CALLABLES),
    ]
    lines += [f"| {row.title} | " + " | ".join(row.marks[n] for n in CALLABLES) + " |" for row in TABLE.values()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
