"""``cube3d export``: questions through teacher and cube, answers through the teacher alone, as the two routes of a
sentence-transformers ``Router``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from cube3d.errors import UserError
from cube3d.files import replacing
from cube3d.model import RidgeMixture
from cube3d.run import Run
from cube3d.teachers.alignment import Alignment
from cube3d.teachers.transformer import TransformerTeacher
from cube_kernels import EmbeddingCube, Lattice, perceive

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense

    from cube3d.export.cube import Cube

POOLING = {"mean": "mean", "cls": "cls", "last": "lasttoken"}

TOLERANCE = 1e-5
"""How far the exported model's unit vectors may be from the run's: the rounding of other batches."""


def export(run: Run, folder: Path) -> None:
    """Writes a model that ``SentenceTransformer(folder, trust_remote_code=True)`` loads without cube3d: safetensors,
    and one file of Python, :mod:`cube3d.export.cube`. Query route: teacher and cube. Document route: teacher.

    Args:
        run: trained.
        folder: written whole or not at all; must not exist.

    Raises:
        UserError: a run that is not trained, a folder that exists, a missing sentence-transformers, or an exported
            model that does not give the run's own vectors for the run's first pairs.
    """
    if folder.exists():
        raise UserError(f"{folder}: exists; name a new folder")
    try:
        import sentence_transformers
    except ImportError as error:
        raise UserError(
            "exporting needs sentence-transformers; `pip install cube-kernels[sentence-transformers]`"
        ) from error
    with replacing(folder) as temporary:
        _assemble(run).save(str(temporary), create_model_card=False)
        (temporary / "README.md").write_text(README, encoding="utf-8")
        # What was saved, not what was assembled, is what somebody will load.
        _check(run, sentence_transformers.SentenceTransformer(str(temporary), trust_remote_code=True, device="cpu"))


def _assemble(run: Run) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Router, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    if len(run.settings.teachers) > 1:
        raise UserError(f"{run.folder}: has {len(run.settings.teachers)} teachers; only a run of one can be exported")
    member, settings = run.ensemble.members[0], run.settings.teachers[0]
    teacher = member.teacher
    if not isinstance(teacher, TransformerTeacher):
        raise UserError(f"teacher {settings.model!r}: only a model of transformers can be exported")
    model, tokenizer = teacher.load()
    with tempfile.TemporaryDirectory() as plain:  # as the teacher loaded it, wherever it came from
        model.save_pretrained(plain)
        tokenizer.save_pretrained(plain)
        transformer = Transformer(plain, max_seq_length=settings.max_length, model_kwargs={"dtype": model.dtype})
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode=POOLING[settings.pooling])
    document = [transformer, pooling, Normalize()]
    for alignment in (*run.ensemble.fusion.alignments, run.ensemble.fusion.reduction):
        if alignment is not None:
            document += [_dense(alignment), Normalize()]
    query = [*document, plain_cube(run.model.mapping, run.model.mixture)]
    router = Router.for_query_document(query_modules=query, document_modules=document)
    return SentenceTransformer(modules=[router], device="cpu", similarity_fn_name="cosine")


def _dense(alignment: Alignment) -> Dense:
    """``(x - mean) @ map`` as a linear layer."""
    from sentence_transformers.base.modules import Dense

    dim, new = alignment.map.shape
    layer = Dense(dim, new, activation_function=torch.nn.Identity())
    layer.load_state_dict({"linear.weight": alignment.map.T, "linear.bias": -alignment.mean @ alignment.map})
    return layer


def plain_cube(cube: EmbeddingCube, mixture: RidgeMixture | None = None) -> Cube:
    """The cube without cube_kernels: its rule in plain PyTorch, its lattice as a table; and the ridge that is mixed
    into its predictions."""
    from cube3d.export.cube import Cube

    rule, lattice = cube.layer.rule, cube.lattice
    tensors = {name.removeprefix("layer."): value.detach() for name, value in cube.named_parameters()}
    tensors["order"] = torch.arange(cube.dim) if cube.order is None else cube.order
    numbers = torch.arange(lattice.cells).reshape(lattice.shape)
    tensors["entered"], tensors["left"] = numbers[cube.input].flatten(), numbers[cube.output].flatten()
    tensors["neighbors"] = neighbor_table(lattice, own=rule.perception == "depthwise")
    depth, height, width = (torch.tensor(lattice.axis_retention(axis)) for axis in range(3))
    tensors["retention"] = torch.einsum("d,h,w->dhw", depth, height, width).float().reshape(-1, 1)
    if mixture is not None:
        tensors |= {f"ridge_{name}": value for name, value in mixture.named_buffers()}
    shapes = {name: list(value.shape) for name, value in tensors.items()}
    plain = Cube(cube.layer.steps, rule.activation, rule.update, str(rule.squash), rule.step_size, shapes)
    plain.load_state_dict(tensors)
    return plain


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


def _check(run: Run, exported: SentenceTransformer) -> None:
    pairs = run.pairs[:32]
    routes = {
        "query": ([pair.question for pair in pairs], run.ensemble.questions, run.model.predict),
        "document": ([pair.answer for pair in pairs], run.ensemble.answers, lambda vectors: vectors),
    }
    for route, (texts, vectors, mapping) in routes.items():
        ours = F.normalize(mapping(vectors(texts)), dim=-1)
        theirs = F.normalize(torch.from_numpy(exported.encode(texts, task=route)), dim=-1)
        difference = (ours - theirs).abs().max().item()
        if not difference <= TOLERANCE:
            raise UserError(
                f"the exported model's {route} vectors differ from the run's by {difference:.1e}; its teacher "
                f"{run.settings.teachers[0].model!r} or its cube has something that the export does not know"
            )


README = """---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
---

# From a question's embedding to its answer's

```python
from sentence_transformers import SentenceTransformer  # 6 or newer

model = SentenceTransformer("path/of/this/folder", trust_remote_code=True)
questions = model.encode_query(["What is overfitting?"])
answers = model.encode_document(["A model that learned its training data by heart.", "A kind of tree."])
print(model.similarity(questions, answers))
```

Questions go through a language model and a trained lattice of cells (`cube.py`, plain PyTorch, which
`trust_remote_code` allows to run); answers through the language model alone.
"""
