"""``cube3d export RUN FILE.onnx``: a reader as a graph of standard ONNX operators, with its tokenizer beside it."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cube3d.errors import UserError
from cube3d.export.plain import plain_reader
from cube3d.files import replacing
from cube3d.reader.tokenizer import FILE
from cube3d.run import Run

if TYPE_CHECKING:
    from cube3d.export.cube import Reader

INPUTS, OUTPUT = ("input_ids", "attention_mask"), "sentence_embedding"

LARGEST = 2**31 - 1
"""Bytes of an ONNX file."""

TOLERANCE = 1e-5
"""How far the graph's unit vectors may be from the run's: the rounding of other kernels."""


class _Graph(nn.Module):
    """What is traced: the reader with tensors in and out."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.reader.read(input_ids, attention_mask)


def export_onnx(run: Run, file: Path) -> None:
    """Writes the graph, ``input_ids`` and ``attention_mask`` ``[batch, length]``, int64, to ``sentence_embedding``
    ``[batch, dim]``, float32, at unit length, and ``tokenizer.json``, which cuts and pads texts as the graph takes
    them.

    Args:
        run: trained, of a reader.
        file: written whole or not at all; must not exist, nor a ``tokenizer.json`` in its folder.

    Raises:
        UserError: a run that is not trained or not of a reader, a file that exists, a missing package, something in the
            reader that cannot be exported, or a graph that does not give the run's own vectors.
    """
    tokenizer_file = file.with_name(FILE)
    for path in (file, tokenizer_file):
        if path.exists():
            raise UserError(f"{path}: exists; name a file in another folder")
    if run.settings.model != "reader":
        raise UserError(
            f"{run.folder}: is a run of a mapping, which needs its teachers' vectors; only a reader is exported to ONNX"
        )
    _require_packages()
    reader = plain_reader(run.model.cpu())
    size = sum(tensor.numel() * tensor.element_size() for tensor in reader.state_dict().values())
    if size > LARGEST:
        raise UserError(
            f"{run.folder}: its reader has {size / 1e9:.1f} GB, and an ONNX file at most {LARGEST / 1e9:.1f}; "
            "reader.storage=int8 makes it smaller"
        )
    with replacing(file) as temporary, replacing(tokenizer_file) as tokenizer:
        write_graph(_Graph(reader).eval(), temporary, reader.max_seq_length)
        reader.tokenizer.save(str(tokenizer))
        _check(run, temporary, tokenizer)


def _require_packages() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime", "sentence_transformers"):
        try:
            __import__(name)
        except ImportError as error:
            raise UserError(f"exporting to ONNX needs {name}; `pip install cube-kernels[onnx]`") from error


def write_graph(module: nn.Module, path: Path, longest: int) -> None:
    """Traces a module of ``input_ids`` and ``attention_mask`` ``[batch, length]`` to a vector a text.

    Args:
        module: in evaluation mode.
        path: of the file.
        longest: tokens of a text, at most.
    """
    import onnx

    # Of sizes that mean nothing: torch takes 0 and 1 for constants. And two tensors: it takes one given twice for one.
    example = torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64)
    dynamic = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=max(longest, 4))}
    with _quiet():
        program = torch.onnx.export(
            module,
            example,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_shapes=(dynamic, dynamic),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    graph = model.graph
    # Where each line of Python that was traced lies on this machine is nobody's business.
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' notices of what they do, and of packages that are not there."""
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        for name in ("torch.onnx", "onnxscript", "onnx_ir"):
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        yield


def _check(run: Run, graph: Path, tokenizer_file: Path) -> None:
    """Questions of the run in one batch, each by itself, and texts of one token and of the longest."""
    import onnxruntime
    from tokenizers import Tokenizer

    session: Any = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    questions = [pair.question for pair in run.pairs[:16]]
    longest = " ".join(pair.answer for pair in run.pairs[: run.settings.reader.max_length])
    for texts in (questions, questions[:1], [longest], [longest, questions[0]]):
        encoded = tokenizer.encode_batch(texts)
        inputs = (torch.tensor([e.ids for e in encoded]), torch.tensor([e.attention_mask for e in encoded]))
        (found,) = session.run([OUTPUT], {name: value.numpy() for name, value in zip(INPUTS, inputs, strict=True)})
        difference = (torch.from_numpy(found) - run.ask(texts)).abs().max().item()
        if not difference <= TOLERANCE:
            raise UserError(
                f"the exported graph's vectors differ from the run's by {difference:.1e}; the reader has something "
                "that the export does not know"
            )
