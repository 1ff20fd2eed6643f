"""``cube3d export RUN FOLDER``: questions through what was trained, answers through the teacher alone, as the two
routes of a sentence-transformers ``Router``; or a reader for both."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from cube3d.errors import UserError
from cube3d.export.plain import plain_cube, plain_reader
from cube3d.files import replacing
from cube3d.model import CubeModel
from cube3d.run import Run
from cube3d.teachers import Ensemble, open_teacher
from cube3d.teachers.alignment import Alignment
from cube3d.teachers.transformer import TransformerTeacher

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense

POOLING = {"mean": "mean", "cls": "cls", "last": "lasttoken"}

TOLERANCE = 1e-4
"""How far the exported model's unit vectors may be from the run's with its teacher in float32, as it is exported: the
rounding of other batches, which whitening magnifies."""

ROUTES = {
    "cube": "questions by teacher and cube, documents by the teacher",
    "reader and teacher": "questions by the reader, documents by the teacher",
    "reader": "questions and documents by the reader, without a teacher",
}
"""What an exported model may hold, and what does what in it."""


def export(run: Run, folder: Path, reader_only: bool = False) -> str:
    """Writes a model that ``SentenceTransformer(folder, trust_remote_code=True)`` loads without cube3d: safetensors,
    and one file of Python, :mod:`cube3d.export.cube`.

    A reader's teacher is left out where it cannot be exported, that is, where it is no model of transformers or one of
    several. A mapping without its teacher is nothing.

    Args:
        run: trained.
        folder: written whole or not at all; must not exist.
        reader_only: leave a reader's teacher out in any case.

    Returns:
        Which of :data:`ROUTES` was written.

    Raises:
        UserError: a run that is not trained, a folder that exists, a missing sentence-transformers, something in the
            run that cannot be exported, or an exported model that does not give the run's own vectors for the run's
            first pairs.
    """
    if folder.exists():
        raise UserError(f"{folder}: exists; name a new folder")
    try:
        import sentence_transformers
    except ImportError as error:
        raise UserError(
            "exporting needs sentence-transformers; `pip install cube-kernels[sentence-transformers]`"
        ) from error
    if isinstance(run.model, CubeModel):
        if reader_only:
            raise UserError(f"{run.folder}: is a run of a mapping, which has no reader")
        kind = "cube"
    else:
        kind = "reader" if reader_only or _obstacle(run) else "reader and teacher"
    with replacing(folder) as temporary:
        _assemble(run, kind).save(str(temporary), create_model_card=False)
        (temporary / "README.md").write_text(README.format(ABOUT[kind]), encoding="utf-8")
        # What was saved, not what was assembled, is what somebody will load.
        _check(
            run, kind, sentence_transformers.SentenceTransformer(str(temporary), trust_remote_code=True, device="cpu")
        )
    return kind


def _assemble(run: Run, kind: str) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    model = run.model.cpu()
    if kind == "reader":
        return SentenceTransformer(modules=[plain_reader(model)], device="cpu", similarity_fn_name="cosine")
    document = _teacher(run)
    is_cube = isinstance(model, CubeModel)
    query = [*document, plain_cube(model.mapping, model.mixture)] if is_cube else [plain_reader(model)]
    router = Router.for_query_document(query_modules=query, document_modules=document)
    return SentenceTransformer(modules=[router], device="cpu", similarity_fn_name="cosine")


def _obstacle(run: Run) -> str | None:
    """Why the run's teacher cannot be exported."""
    teachers = run.settings.teachers
    if len(teachers) > 1:
        return f"{run.folder}: has {len(teachers)} teachers; only a run of one can be exported"
    if not isinstance(run.ensemble.members[0].teacher, TransformerTeacher):
        return f"teacher {teachers[0].model!r}: only a model of transformers can be exported"
    return None


def _teacher(run: Run) -> list[Any]:
    """The modules of the teacher."""
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    obstacle = _obstacle(run)
    if obstacle is not None:
        raise UserError(obstacle)
    settings, teacher = run.settings.teachers[0], _with_float32(run).members[0].teacher
    assert isinstance(teacher, TransformerTeacher)
    model, tokenizer = teacher.load()
    with tempfile.TemporaryDirectory() as plain:
        _plain(model).save_pretrained(plain)
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.chat_template = None  # with one, sentence-transformers would make a conversation of every text
        tokenizer.save_pretrained(plain)
        transformer = Transformer(plain, max_seq_length=settings.max_length, model_kwargs={"dtype": torch.float32})
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode=POOLING[settings.pooling])
    modules = [transformer, pooling, Normalize()]
    for alignment in (*run.ensemble.fusion.alignments, run.ensemble.fusion.reduction):
        if alignment is not None:
            modules += [_dense(alignment), Normalize()]
    return modules


def _plain(model: Any) -> Any:
    """The same weights in a model that nothing tells where they came from: transformers saves none from GGUF."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    return plain


def _dense(alignment: Alignment) -> Dense:
    """``(x - mean) @ map`` as a linear layer."""
    from sentence_transformers.base.modules import Dense

    dim, new = alignment.map.shape
    layer = Dense(dim, new, activation_function=torch.nn.Identity())
    layer.load_state_dict({"linear.weight": alignment.map.T, "linear.bias": -alignment.mean @ alignment.map})
    return layer


def _check(run: Run, kind: str, exported: SentenceTransformer) -> None:
    pairs = run.pairs[:32]
    questions, answers = [pair.question for pair in pairs], [pair.answer for pair in pairs]
    checks = {"query": (questions, run.ask(questions)), "document": (answers, run.ask(answers))}
    if kind != "reader":
        ensemble = _with_float32(run)
        checks["document"] = (answers, ensemble.answers(answers))
        if isinstance(run.model, CubeModel):
            checks["query"] = (questions, run.model.map(ensemble.questions(questions)))
    for route, (texts, ours) in checks.items():
        theirs = F.normalize(torch.from_numpy(exported.encode(texts, task=route)), dim=-1)
        difference = (F.normalize(ours, dim=-1) - theirs).abs().max().item()
        if not difference <= TOLERANCE:
            raise UserError(
                f"the exported model's {route} vectors differ from the run's by {difference:.1e}; its teacher "
                f"{run.settings.teachers[0].model!r} or its {run.settings.model} has something that the export does "
                "not know"
            )


def _with_float32(run: Run) -> Ensemble:
    """The run's ensemble of one transformer, which computes in float32."""
    (member,) = run.ensemble.members
    settings = run.settings.teachers[0].model_copy(update={"dtype": "float32"})
    return replace(run.ensemble, members=[replace(member, teacher=open_teacher(settings, member.teacher.learned))])


ABOUT = {
    "cube": """Questions go through a language model and a trained lattice of cells (`cube.py`, plain PyTorch, which
`trust_remote_code` allows to run); answers through the language model alone.""",
    "reader and teacher": """Questions are read without a language model: by a table of token vectors and a trained
lattice of cells (`cube.py`, plain PyTorch, which `trust_remote_code` allows to run), which takes a small share of the
time. Answers go through the language model whose vectors the reader has learned to give; embed them once. `encode`
without a task is `encode_document`. A question of which the table has no token gets zeros, and a warning.""",
    "reader": """Both are read without a language model: by a table of token vectors and a trained lattice of cells
(`cube.py`, plain PyTorch, which `trust_remote_code` allows to run). Its vectors lie in the space of the language model
that it has learned from, which is not in this folder: answers that were embedded by that one can be searched, too.
A text of which the table has no token gets zeros, and a warning.""",
}

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

{}
"""
